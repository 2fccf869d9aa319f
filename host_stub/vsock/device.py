"""The device as its machine monitor sees it: what was negotiated, the guest's memory, three rings. Messages in, replies out.

Rules
- A breach by the monitor is a `FrontEndError`, and its connection ends. What the guest has set wrong (a queue outside its memory) is no
  breach of the monitor's: that ring is `broken`, with the reason, until it is set up anew.
- A ring runs from the moment it has size, place, base and a descriptor to be kicked by, is enabled, and there is memory; a new memory
  table stops all rings and starts them again where they were. `GET_VRING_BASE` stops one and says where. Rings without descriptors, which
  would have to be polled, are refused.
- `REPLY_ACK`: whoever asks for it is told 0, or 1 before its connection is closed.
- The configuration space is the guest's CID, eight bytes, and cannot be written.

Queues: 0 host to guest, 1 guest to host, 2 events. QEMU keeps the third to itself; User Mode Linux gives it to us.
Sources: QEMU docs/interop/vhost-user.rst; virtio 1.2, 5.10.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Protocol

from host_stub.vsock import messages
from host_stub.vsock.memory import GuestError, GuestMemory
from host_stub.vsock.messages import Ask, FrontEndError, Message, VringAddresses
from host_stub.vsock.ring import Ring

RX, TX, EVENT = 0, 1, 2
QUEUES = 3

INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1 = 1 << 28, 1 << 29, 1 << 30, 1 << 32
FEATURES = INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES | VERSION_1
REPLY_ACK, BACKEND_REQ, CONFIG = 1 << 3, 1 << 5, 1 << 9
PROTOCOL = REPLY_ACK | BACKEND_REQ | CONFIG


class Watcher(Protocol):
    """Who drives the rings."""

    def changed(self, index: int) -> None:
        """A queue's ring or the descriptor it is kicked by may be another, or gone. May raise `FrontEndError`."""

    def releasing(self, fd: int) -> None:
        """A descriptor to be kicked by is closed right after. The monitor has a copy, so epoll would not notice."""


class Vring:
    """What a monitor has said of one queue. `ring` is there while it runs; `broken` says why it does not."""

    def __init__(self, index: int, releasing: Callable[[int], None]) -> None:
        self.index = index
        self._releasing = releasing
        self.size = 0
        self.base = 0
        self.where: VringAddresses | None = None
        self.kick_fd = self.call_fd = self.error_fd = -1
        self.enabled = True
        self.ring: Ring | None = None
        self.broken = ""
        self.moved = False
        """It is to go on elsewhere than where it was stopped: it is another guest's, or the same after a reset."""

    def stop(self) -> None:
        """Keep where it was."""
        if self.ring is not None:
            self.base = self.ring.base
            self.ring.close()
            self.ring = None

    def call(self) -> None:
        """Interrupt the guest."""
        _signal(self.call_fd)

    def fail(self, reason: str) -> None:
        """The guest broke it: stop, say so to the monitor, stay stopped until it is set up anew."""
        self.stop()
        self.broken = reason
        _signal(self.error_fd)

    def replace_fd(self, name: str, fd: int) -> None:
        """Have another descriptor; the one before is closed."""
        before = getattr(self, name)
        setattr(self, name, fd)
        if before >= 0:
            if name == "kick_fd":
                self._releasing(before)
            os.close(before)

    def close(self) -> None:
        """Stop, and close what it was given."""
        self.stop()
        for name in ("kick_fd", "call_fd", "error_fd"):
            self.replace_fd(name, -1)


class Device:
    """One monitor's view."""

    def __init__(self, cid: int, watcher: Watcher) -> None:
        self._config = struct.pack("<Q", cid)
        self._changed = watcher.changed
        self._features = self._protocol = 0
        self._memory: GuestMemory | None = None
        self._backend_request_fd = -1
        self.vrings = tuple(Vring(index, watcher.releasing) for index in range(QUEUES))
        self._answers: dict[int, Callable[[Message], bytes | None]] = {
            Ask.GET_FEATURES: lambda _: messages.compose_u64(FEATURES),
            Ask.SET_FEATURES: self._set_features,
            Ask.SET_OWNER: lambda _: None,
            Ask.RESET_OWNER: lambda _: self.stop(),
            Ask.SET_MEM_TABLE: self._set_memory,
            Ask.SET_VRING_NUM: self._set_size,
            Ask.SET_VRING_ADDR: self._set_addresses,
            Ask.SET_VRING_BASE: self._set_base,
            Ask.GET_VRING_BASE: self._get_base,
            Ask.SET_VRING_KICK: lambda message: self._set_fd(message, "kick_fd"),
            Ask.SET_VRING_CALL: lambda message: self._set_fd(message, "call_fd"),
            Ask.SET_VRING_ERR: lambda message: self._set_fd(message, "error_fd"),
            Ask.GET_PROTOCOL_FEATURES: lambda _: messages.compose_u64(PROTOCOL),
            Ask.SET_PROTOCOL_FEATURES: self._set_protocol,
            Ask.GET_QUEUE_NUM: lambda _: messages.compose_u64(QUEUES),
            Ask.SET_VRING_ENABLE: self._set_enabled,
            Ask.SET_BACKEND_REQ_FD: self._set_backend_request,
            Ask.GET_CONFIG: self._get_config,
        }

    def handle(self, message: Message) -> bytes | None:
        """Do what is asked; the whole reply, or None if none is wanted. Raises `FrontEndError`. Closes descriptors nobody wants."""
        try:
            answer = self._answers.get(message.ask)
            if answer is None:
                raise FrontEndError(f"request {message.ask} was not offered")
            reply = answer(message)
        finally:
            message.close()
        if reply is not None:
            return messages.compose_reply(message.ask, reply)
        return self.acknowledge(message, 0)

    def acknowledge(self, message: Message, status: int) -> bytes | None:
        """The reply to a request that has none of its own, if one is wanted."""
        if message.needs_reply and self._protocol & REPLY_ACK:
            return messages.compose_reply(message.ask, messages.compose_u64(status))
        return None

    def stop(self) -> None:
        """Stop all rings."""
        for vring in self.vrings:
            vring.stop()
            self._changed(vring.index)

    def close(self) -> None:
        """Stop, and let go of memory and descriptors."""
        for vring in self.vrings:
            vring.close()
            self._changed(vring.index)
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._close_backend_request()

    # -- what was negotiated -----------------------------------------------------------------------------------------

    def _set_features(self, message: Message) -> None:
        features = messages.parse_u64(message.payload)
        if features & ~FEATURES:
            raise FrontEndError(f"features {features & ~FEATURES:#x} were not offered")
        if features != self._features:
            for vring in self.vrings:
                vring.stop()
                # Who knows of protocol features enables each ring; who does not, has them enabled from the begin.
                vring.enabled = not features & PROTOCOL_FEATURES
                self._changed(vring.index)
        self._features = features

    def _set_protocol(self, message: Message) -> None:
        protocol = messages.parse_u64(message.payload)
        if protocol & ~PROTOCOL:
            raise FrontEndError(f"protocol features {protocol & ~PROTOCOL:#x} were not offered")
        self._protocol = protocol

    def _get_config(self, message: Message) -> bytes:
        offset, size = messages.parse_config(message.payload)
        # Beyond the end an answer without data says that it failed.
        whole = self._config.ljust(messages.CONFIG_BYTES, b"\0")
        return messages.compose_config(offset, whole[offset : offset + size]) if offset + size <= len(whole) else b""

    def _set_backend_request(self, message: Message) -> None:
        if len(message.fds) != 1:
            raise FrontEndError("a way back came without its descriptor")
        self._close_backend_request()
        self._backend_request_fd = message.adopt()

    def _close_backend_request(self) -> None:
        fd, self._backend_request_fd = self._backend_request_fd, -1
        if fd >= 0:
            os.close(fd)

    # -- memory and rings --------------------------------------------------------------------------------------------

    def _set_memory(self, message: Message) -> None:
        memory = GuestMemory(messages.parse_memory_table(message.payload), message.fds)
        for vring in self.vrings:
            vring.stop()
        if self._memory is not None:
            self._memory.close()
        self._memory = memory
        for vring in self.vrings:
            self._start(vring)

    def _set_size(self, message: Message) -> None:
        vring, size = self._state(message)
        vring.stop()
        vring.size = size
        self._start(vring)

    def _set_addresses(self, message: Message) -> None:
        where = messages.parse_vring_addresses(message.payload)
        vring = self._vring(where.queue)
        vring.stop()
        vring.where, vring.broken = where, ""
        self._start(vring)

    def _set_base(self, message: Message) -> None:
        vring, base = self._state(message)
        vring.stop()
        vring.moved = vring.moved or base != vring.base
        vring.base, vring.broken = base & 0xFFFF, ""
        self._start(vring)

    def _get_base(self, message: Message) -> bytes:
        vring, _ = self._state(message)
        vring.stop()
        vring.replace_fd("kick_fd", -1)
        self._changed(vring.index)
        return messages.compose_vring_state(vring.index, vring.base)

    def _set_enabled(self, message: Message) -> None:
        vring, enabled = self._state(message)
        if enabled > 1:
            raise FrontEndError(f"a ring is enabled by 1 or not by 0, not by {enabled}")
        vring.enabled = bool(enabled)
        if not enabled:
            vring.stop()
        self._start(vring)

    def _set_fd(self, message: Message, name: str) -> None:
        number = messages.parse_u64(message.payload)
        vring = self._vring(number & messages.VRING_INDEX_MASK)
        if number & messages.VRING_WITHOUT_FD or len(message.fds) != 1:
            if name == "error_fd" and not message.fds:
                vring.replace_fd(name, -1)
                return
            raise FrontEndError("a ring without a descriptor would have to be polled, which is not done here")
        vring.replace_fd(name, message.adopt())
        if name == "kick_fd":
            self._start(vring)

    def _start(self, vring: Vring) -> None:
        """Start it if all is there that it needs, and have `changed` told in any case."""
        where = vring.where
        ready = vring.enabled and vring.size and vring.kick_fd >= 0 and not vring.broken
        if vring.ring is None and ready and where is not None and self._memory is not None:
            try:
                vring.ring = Ring(
                    self._memory,
                    where,
                    size=vring.size,
                    base=vring.base,
                    event_idx=bool(self._features & EVENT_IDX),
                    indirect=bool(self._features & INDIRECT_DESC),
                    writable=vring.index != TX,
                )
            except GuestError as error:
                vring.fail(str(error))
        self._changed(vring.index)

    def _state(self, message: Message) -> tuple[Vring, int]:
        index, number = messages.parse_vring_state(message.payload)
        return self._vring(index), number

    def _vring(self, index: int) -> Vring:
        if index >= QUEUES:
            raise FrontEndError(f"ring {index}: a vsock has {QUEUES}")
        return self.vrings[index]


def _signal(fd: int) -> None:
    """Add one to an eventfd. One that is full has been signalled already; one that is broken cannot be."""
    if fd >= 0:
        try:
            os.eventfd_write(fd, 1)
        except OSError:
            return
