"""What the back end and the process that owns VZ's objects say to each other, as bytes and as types. No I/O.

    frame = length (4 bytes, big-endian) · MessagePack map of one message, with its `type`
    descriptors travel by SCM_RIGHTS with the first byte of the frame they belong to, in order; the message says how many they are

Rules
- A request carries an `id`; one answer carries it back. What comes without an `id` is news.
- A frame has at most `FRAME_LIMIT_BYTES`. Whatever is longer, is no message, or has not its descriptors, is `BrokenWords`: the peer
  is not ours, and the conversation ends. Descriptors that nobody took are closed then.
- macOS has no SOCK_SEQPACKET, so it is a stream; a read may bring half a frame or three.

Source: unix(4) of macOS, SCM_RIGHTS.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from host_stub.words import MachineSpec

FRAME_LIMIT_BYTES = 1 << 20
FD_LIMIT = 64
"""The most descriptors that may wait for their frame."""
CONNECTIONS = 1024
"""The most vsock connections that are open at once."""
_LENGTH = struct.Struct(">I")


class BrokenWords(Exception):
    """The peer sent what no peer of ours sends."""


class Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    """`FDS` is how many descriptors come with it."""

    FDS: ClassVar[int] = 0


class Request(Message, frozen=True, kw_only=True):
    id: int


class Start(Request, frozen=True, kw_only=True, tag="start"):
    """Make the machine and start it. Two descriptors, pipes: the console's input to read, its output to write.

    `guest_ports`: what the guest may dial.
    """

    FDS: ClassVar[int] = 2
    spec: MachineSpec
    guest_ports: tuple[int, ...]


class RequestStop(Request, frozen=True, kw_only=True, tag="request_stop"):
    """Press the power button."""


class Kill(Request, frozen=True, kw_only=True, tag="kill"):
    """End it now."""


class Pause(Request, frozen=True, kw_only=True, tag="pause"): ...


class Resume(Request, frozen=True, kw_only=True, tag="resume"): ...


class SetMemory(Request, frozen=True, kw_only=True, tag="set_memory"):
    """Ask the guest's balloon to leave it this much."""

    target_bytes: int


class Connect(Request, frozen=True, kw_only=True, tag="connect"):
    """Connect to a vsock port of the guest."""

    port: int


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """A connection is done with. Until then VZ's object of it is kept: with it the guest's end would close."""

    connection: int


class Answer(Message, frozen=True, kw_only=True):
    id: int


class Done(Answer, frozen=True, kw_only=True, tag="done"):
    """`notes` are sentences a person should read, such as a number that was brought within VZ's bounds."""

    notes: tuple[str, ...] = ()


class Failed(Answer, frozen=True, kw_only=True, tag="failed"):
    """A `Trouble` on its way."""

    code: str
    message: str
    remedy: str
    details: dict[str, Any] = {}


class Connected(Answer, frozen=True, kw_only=True, tag="connected"):
    """Its descriptor is the connection, to be given back with `Release`."""

    FDS: ClassVar[int] = 1
    connection: int
    local_port: int


class Incoming(Message, frozen=True, kw_only=True, tag="incoming"):
    """The guest connected. Two descriptors: its connection, to be given back with `Release`, and the socket at `{vsock}_{port}`."""

    FDS: ClassVar[int] = 2
    connection: int
    port: int


class Stopped(Message, frozen=True, kw_only=True, tag="stopped"):
    """The guest has ended. `error` is empty where it powered itself off."""

    error: str = ""


class Woke(Message, frozen=True, kw_only=True, tag="woke"):
    """The Mac slept and is awake again."""


FromBackend = Start | RequestStop | Kill | Pause | Resume | SetMemory | Connect | Release
FromProcess = Done | Failed | Connected | Incoming | Stopped | Woke


def encode(message: Message) -> bytes:
    body = msgspec.msgpack.encode(message, enc_hook=_encode_path)
    if len(body) > FRAME_LIMIT_BYTES:
        raise BrokenWords(f"a message of {len(body)} bytes is over the bound of {FRAME_LIMIT_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes and descriptors in, messages out. Owns each descriptor from `feed` until `next` hands it over or `close` closes it."""

    def __init__(self, kinds: Any) -> None:
        """`kinds`: the union of the messages that may come."""
        self._decoder = msgspec.msgpack.Decoder(kinds, dec_hook=_decode_path)
        self._taken = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: list[int]) -> None:
        """Raises `BrokenWords`, with all descriptors closed."""
        self._taken += data
        self._fds.extend(fds)
        if len(self._fds) > FD_LIMIT:
            raise self._broken(f"{len(self._fds)} descriptors came before their message")

    def next(self) -> tuple[Any, list[int]] | None:
        """The next message with its descriptors, the caller's now; None if more is needed. Raises `BrokenWords`."""
        if len(self._taken) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._taken)
        if length > FRAME_LIMIT_BYTES:
            raise self._broken(f"a frame of {length} bytes is over the bound of {FRAME_LIMIT_BYTES}")
        end = _LENGTH.size + length
        if len(self._taken) < end:
            return None
        try:
            message: Message = self._decoder.decode(self._taken[_LENGTH.size : end])
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
        ) as error:  # msgspec lets a text that is no UTF-8 through as the latter
            raise self._broken(f"it is no message: {error}") from error
        if len(self._fds) < message.FDS:
            raise self._broken(f"{type(message).__name__} came without its descriptors")
        del self._taken[:end]
        return message, [self._fds.popleft() for _ in range(message.FDS)]

    def close(self) -> None:
        """Close what nobody took; may be called again."""
        while self._fds:
            os.close(self._fds.popleft())

    def _broken(self, why: str) -> BrokenWords:
        self.close()
        return BrokenWords(why)


def _encode_path(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a message")


def _decode_path(kind: type, value: Any) -> Any:
    if issubclass(kind, Path) and isinstance(value, str) and "\0" not in value:
        return Path(value)
    raise ValueError(f"{kind.__name__} cannot be made of {type(value).__name__}")
