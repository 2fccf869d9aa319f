"""One vsock connection between a guest's port and a host's, as a state machine without I/O, and the table of all of them.

    host asks:   DIALLING ─ RESPONSE ─▶ OPEN ─▶ CLOSED            guest asks:   REQUEST ─▶ OPEN (owes RESPONSE) ─▶ CLOSED

Rules
- Credit, both ways, modulo 2^32. The guest may have sent at most our `buf_alloc` beyond what we passed on; more is a breach. We send at
  most the guest's `buf_alloc` beyond what it says it passed on. A `fwd_cnt` that goes back or claims what was never sent is not taken:
  threads of a Linux guest may overtake each other on their way to the queue, and a lie costs only the liar.
- A packet that does not belong where the connection stands (data before the answer, data after the shutdown, a second request, an unknown
  operation) is a breach: the connection is reset. Nothing a guest sends raises.
- What is owed to the guest are flags, not a queue: one of each kind, however often it became due.
- The guest ends by SHUTDOWN of both directions, or by RST. What it sent before is still the host's.

Source: virtio 1.2, 5.10.6.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from host_stub.vsock import packet
from host_stub.vsock.packet import Header

CONNECTION_LIMIT = 1024
ROOMY_CONNECTIONS, ROOM_BYTES, SMALL_ROOM_BYTES = 128, 256 * 1024, 64 * 1024
"""What a guest may have on its way to a host that does not read: the first connections more, so all together at most 88 MiB."""
_HOST_PORTS = range(1 << 30, 1 << 31)
"""Where the host's own ends of connections get their ports from."""
_MOD = 0xFFFFFFFF


class State(Enum):
    """Where a connection stands."""

    DIALLING = "dialling"
    OPEN = "open"
    CLOSED = "closed"


class Happened(Enum):
    """What a packet means to whoever moves the bytes."""

    NOTHING = "nothing"
    OPENED = "opened"
    DATA = "data"
    """Its payload is the host's."""
    HALF_CLOSED = "half closed"
    """`guest_done` has changed."""
    DONE = "done"
    """In good order; the guest waits for our RST."""
    RESET = "reset"
    """By the guest; it wants no answer."""
    BREACH = "breach"
    """The guest broke the rules; it gets RST, and the host's end is closed at once."""


class Key(NamedTuple):
    """What tells a connection from others: both ends' CIDs are always the same."""

    guest_port: int
    host_port: int


class Connection:
    """See the rules above. `guest_done` and `host_done` are SHUTDOWN's flags, as each side has said them."""

    __slots__ = (
        "_passed_on",
        "_peer_fwd",
        "_peer_room",
        "_received",
        "_request_owed",
        "_response_owed",
        "_sent",
        "_shutdown_owed",
        "_stalled",
        "_told",
        "_update_owed",
        "guest_done",
        "host_done",
        "key",
        "room",
        "state",
    )

    def __init__(self, key: Key, *, room: int, request: Header | None = None) -> None:
        self.key, self.room = key, room
        self.state = State.DIALLING if request is None else State.OPEN
        self.guest_done = self.host_done = 0
        self._request_owed, self._response_owed = request is None, request is not None
        self._shutdown_owed = self._update_owed = False
        self._stalled = 0
        self._received = self._passed_on = self._told = 0
        self._sent = self._peer_fwd = self._peer_room = 0
        if request is not None:
            self._take_credit(request.buf_alloc, request.fwd_cnt)

    # -- from the guest ----------------------------------------------------------------------------------------------

    def receive(self, header: Header) -> Happened:
        """Take one of the guest's packets."""
        op = header.op
        if op == packet.RST:
            self.state = State.CLOSED
            return Happened.RESET
        self._take_credit(header.buf_alloc, header.fwd_cnt)
        if op == packet.RESPONSE:
            if self.state is not State.DIALLING or self._request_owed:
                return self._breach()
            self.state = State.OPEN
            return Happened.OPENED
        if self.state is not State.OPEN or self._response_owed:
            return self._breach()
        if op == packet.RW:
            return self._receive_data(header.length)
        if op == packet.SHUTDOWN:
            return self._receive_shutdown(header.flags & packet.DONE)
        if op == packet.CREDIT_REQUEST:
            self._update_owed = True
        elif op != packet.CREDIT_UPDATE:
            return self._breach()
        return Happened.NOTHING

    def passed_on(self, count: int) -> None:
        """`count` bytes of the guest's have left our room; tells it once less than half of the room is left to it."""
        self._passed_on = (self._passed_on + count) & _MOD
        if (self._received - self._told) & _MOD > self.room // 2:
            self._update_owed = True

    def _receive_data(self, length: int) -> Happened:
        if self.guest_done & packet.SENDS_NO_MORE:
            return self._breach()
        if ((self._received - self._passed_on) & _MOD) + length > self.room:
            return self._breach()
        self._received = (self._received + length) & _MOD
        return Happened.DATA

    def _receive_shutdown(self, flags: int) -> Happened:
        before, self.guest_done = self.guest_done, self.guest_done | flags
        if self.guest_done == packet.DONE:
            self.state = State.CLOSED
            return Happened.DONE
        return Happened.NOTHING if before == self.guest_done else Happened.HALF_CLOSED

    def _take_credit(self, room: int, fwd_cnt: int) -> None:
        self._peer_room = room
        if (fwd_cnt - self._peer_fwd) & _MOD <= (self._sent - self._peer_fwd) & _MOD:
            self._peer_fwd = fwd_cnt
        if self._stalled and self.credit:
            self._stalled = 0

    def _breach(self) -> Happened:
        self.state = State.CLOSED
        return Happened.BREACH

    # -- to the guest ------------------------------------------------------------------------------------------------

    @property
    def credit(self) -> int:
        """How many bytes the guest has room for."""
        return max(0, self._peer_room - ((self._sent - self._peer_fwd) & _MOD))

    @property
    def may_send(self) -> bool:
        """Whether data may go to the guest, credit aside."""
        return (
            self.state is State.OPEN
            and not self._response_owed
            and not self.host_done & packet.SENDS_NO_MORE
            and not self.guest_done & packet.RECEIVES_NO_MORE
        )

    def sent(self, count: int) -> None:
        """`count` bytes went to the guest, each packet with a header of `compose`."""
        self._sent = (self._sent + count) & _MOD

    def stall(self) -> None:
        """There is data and no credit: ask for some, once."""
        if not self._stalled:
            self._stalled = 1

    def finish(self, flags: int) -> None:
        """The host's end sends no more, or receives no more."""
        if self.state is State.OPEN and flags & ~self.host_done:
            self.host_done |= flags
            self._shutdown_owed = True

    @property
    def owes(self) -> bool:
        """Whether a packet without data is due."""
        return (
            self._request_owed or self._response_owed or self._shutdown_owed or self._update_owed or self._stalled == 1
        )

    def next_owed(self) -> tuple[int, int]:
        """The operation and flags of what is due next, which is owed no more. Only while `owes`."""
        if self._request_owed:
            self._request_owed = False
            return packet.REQUEST, 0
        if self._response_owed:
            self._response_owed = False
            return packet.RESPONSE, 0
        if self._shutdown_owed:
            self._shutdown_owed = False
            return packet.SHUTDOWN, self.host_done
        if self._update_owed:
            return packet.CREDIT_UPDATE, 0
        self._stalled = 2
        return packet.CREDIT_REQUEST, 0

    def compose(self, guest_cid: int, host_cid: int, op: int, *, length: int = 0, flags: int = 0) -> Header:
        """A header to the guest; every one tells what we have room for."""
        self._told = self._passed_on
        self._update_owed = False
        guest_port, host_port = self.key
        return Header(
            host_cid, guest_cid, host_port, guest_port, length, packet.STREAM, op, flags, self.room, self._passed_on
        )


class HostPorts:
    """Ports for the host's own ends, in turn, so that one is not used again soon."""

    def __init__(self) -> None:
        self._next = _HOST_PORTS.start

    def take(self) -> int:
        """The next port; that it is free the caller checks."""
        port = self._next
        self._next = port + 1 if port + 1 < _HOST_PORTS.stop else _HOST_PORTS.start
        return port


def room_for(connections: int) -> int:
    """What one more connection may have on its way, beside so many others."""
    return ROOM_BYTES if connections < ROOMY_CONNECTIONS else SMALL_ROOM_BYTES
