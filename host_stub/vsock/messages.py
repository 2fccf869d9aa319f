"""The vhost-user protocol's messages: bytes and descriptors from a machine monitor ↔ types, without I/O.

    u32 request · u32 flags (bits 0-1 version 1, bit 2 reply, bit 3 a reply is wanted) · u32 size · payload

Rules
- A message is read in two steps, its header and then exactly its payload, so that the descriptors which come with its bytes are its own.
- Any bytes give a `Message` or raise `FrontEndError`; a payload is at most `PAYLOAD_BYTES` and its descriptors at most `FD_LIMIT`.
- Whoever has a message owns its descriptors: `adopt` takes one, `close` closes what nobody adopted.
- Everything is in the machine's own byte order, which is little-endian on all that we run on.

Source: QEMU docs/interop/vhost-user.rst.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("=III")
VERSION, VERSION_MASK, IS_REPLY, NEEDS_REPLY = 1, 3, 1 << 2, 1 << 3
REGION_LIMIT = 8
"""Of a memory table; a front end that wants more has to negotiate it, and cannot here."""
FD_LIMIT = REGION_LIMIT
CONFIG_BYTES = 256
PAYLOAD_BYTES = 512

VRING_INDEX_MASK, VRING_WITHOUT_FD = 0xFF, 1 << 8

_U64 = struct.Struct("=Q")
_VRING_STATE = struct.Struct("=II")
_VRING_ADDRESSES = struct.Struct("=IIQQQQ")
_REGION_COUNT = struct.Struct("=II")
_REGION = struct.Struct("=QQQQ")
_CONFIG = struct.Struct("=III")


class FrontEndError(Exception):
    """The machine monitor broke the protocol, or asks for what was not offered. Its connection is closed."""


class Ask(IntEnum):
    """What a front end may ask for here; the numbers are the protocol's."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25


class Region(NamedTuple):
    """One piece of the guest's memory: where the guest and the monitor have it, and where it lies in its descriptor."""

    guest_address: int
    size: int
    user_address: int
    offset: int


class VringAddresses(NamedTuple):
    """Where a virtqueue lies, by the monitor's own addresses."""

    queue: int
    flags: int
    descriptors: int
    used: int
    available: int
    log: int


class Message:
    """One message and the descriptors that came with it."""

    __slots__ = ("ask", "fds", "needs_reply", "payload")

    def __init__(self, ask: int, payload: bytes, *, needs_reply: bool = False, fds: Sequence[int] = ()) -> None:
        self.ask, self.payload, self.needs_reply, self.fds = ask, payload, needs_reply, list(fds)

    def adopt(self) -> int:
        """Take the first descriptor: the caller closes it."""
        return self.fds.pop(0)

    def close(self) -> None:
        """Close what nobody adopted."""
        while self.fds:
            os.close(self.fds.pop())


class MessageReader:
    """Feed it at most `wanted` bytes at a time, with what descriptors came with them."""

    def __init__(self) -> None:
        self._taken = bytearray()
        self._fds: list[int] = []
        self._header: tuple[int, int, int] | None = None

    @property
    def wanted(self) -> int:
        """How many bytes the next `feed` may bring; never 0."""
        size = HEADER.size if self._header is None else self._header[2]
        return size - len(self._taken)

    @property
    def in_message(self) -> bool:
        """Whether an end of file now would cut a message."""
        return self._header is not None or bool(self._taken)

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> Message | None:
        """Take bytes and descriptors (which are ours from now on); the message once it is whole."""
        self._fds += fds
        if len(self._fds) > FD_LIMIT:
            raise FrontEndError(f"a message came with more than {FD_LIMIT} descriptors")
        self._taken += data
        if self._header is None:
            if len(self._taken) < HEADER.size:
                return None
            self._header = _parse_header(bytes(self._taken))
            self._taken.clear()
        ask, flags, size = self._header
        if len(self._taken) < size:
            return None
        message = Message(ask, bytes(self._taken), needs_reply=bool(flags & NEEDS_REPLY), fds=self._fds)
        self._taken.clear()
        self._fds, self._header = [], None
        return message

    def close(self) -> None:
        """Close the descriptors of a message that never became whole."""
        while self._fds:
            os.close(self._fds.pop())


def _parse_header(data: bytes) -> tuple[int, int, int]:
    ask, flags, size = HEADER.unpack(data)
    if flags & VERSION_MASK != VERSION:
        raise FrontEndError(f"version {flags & VERSION_MASK} of the protocol is not spoken here")
    if flags & IS_REPLY:
        raise FrontEndError("a reply came that nobody waits for")
    if size > PAYLOAD_BYTES:
        raise FrontEndError(f"a message of {size} bytes; at most {PAYLOAD_BYTES} make sense")
    return ask, flags, size


# -- payloads ---------------------------------------------------------------------------------------------------------


def parse_u64(payload: bytes) -> int:
    """Features, protocol features, and rings with a descriptor or without."""
    number: int
    (number,) = _exactly(_U64, payload)
    return number


def parse_vring_state(payload: bytes) -> tuple[int, int]:
    """The index of a ring and its number: size, base, or whether it is enabled."""
    index, number = _exactly(_VRING_STATE, payload)
    return index, number


def parse_vring_addresses(payload: bytes) -> VringAddresses:
    """Where a ring lies."""
    return VringAddresses(*_exactly(_VRING_ADDRESSES, payload))


def parse_memory_table(payload: bytes) -> tuple[Region, ...]:
    """The regions, in the order of their descriptors. Some monitors send room for all regions: what is behind the last is not looked at."""
    if len(payload) < _REGION_COUNT.size:
        raise FrontEndError("a memory table without its count")
    count, _ = _REGION_COUNT.unpack_from(payload)
    if not 0 < count <= REGION_LIMIT:
        raise FrontEndError(f"a memory table of {count} regions; 1 to {REGION_LIMIT} are taken")
    if len(payload) < _REGION_COUNT.size + count * _REGION.size:
        raise FrontEndError(f"a memory table shorter than its {count} regions")
    return tuple(Region(*_REGION.unpack_from(payload, _REGION_COUNT.size + at * _REGION.size)) for at in range(count))


def parse_config(payload: bytes) -> tuple[int, int]:
    """Offset and size of what is asked of the configuration space."""
    if len(payload) < _CONFIG.size:
        raise FrontEndError("a configuration request without its header")
    offset, size, _ = _CONFIG.unpack_from(payload)
    if size > CONFIG_BYTES or len(payload) != _CONFIG.size + size:
        raise FrontEndError(f"a configuration request of {size} bytes in a message of {len(payload)}")
    return offset, size


def compose_reply(ask: int, payload: bytes) -> bytes:
    """The answer to `ask`."""
    return HEADER.pack(ask, VERSION | IS_REPLY, len(payload)) + payload


def compose_u64(number: int) -> bytes:
    """A number as a payload."""
    return _U64.pack(number)


def compose_vring_state(index: int, number: int) -> bytes:
    """The base at which a ring was stopped."""
    return _VRING_STATE.pack(index, number)


def compose_config(offset: int, data: bytes) -> bytes:
    """A piece of the configuration space."""
    return _CONFIG.pack(offset, len(data), 0) + data


def _exactly(shape: struct.Struct, payload: bytes) -> tuple[int, ...]:
    if len(payload) != shape.size:
        raise FrontEndError(f"a payload of {len(payload)} bytes where {shape.size} belong")
    return shape.unpack(payload)
