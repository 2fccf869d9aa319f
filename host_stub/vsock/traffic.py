"""What goes through the device: packets of the guest's to the host's ends, bytes of theirs to the guest.

Rules
- Only CID 2 and the guest's own are spoken to: another destination is answered with RST, a packet with another's source is dropped.
- Every call does a bounded amount of work and says whether there is more. Ends that have something for the guest take turns.
- Answers to packets of no connection wait in `_resets`, one for each pair of ports; when `RESETS_LIMIT` wait, nothing more is taken from
  the guest until it takes them. So a guest that does not read is not read from, and a flood of one kind costs it its own ring.
- When the guest has no buffers, its ring is asked for a kick and nothing is done until then.
- A ring that the guest breaks raises `GuestError` out of `turn`; nothing else does.

Whoever drives it keeps the rings in `rx`, `tx` and `events`, gives it sockets, and calls the guest where `call_rx` and `call_tx` say so.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from host_stub.vsock import packet
from host_stub.vsock.connections import (
    CONNECTION_LIMIT,
    Connection,
    Happened,
    HostPorts,
    Key,
    State,
    room_for,
)
from host_stub.vsock.memory import GuestError
from host_stub.vsock.packet import SIZE, Header
from host_stub.vsock.ring import Chain, Ring
from host_stub.vsock.streams import HostEnd
from host_stub.words import HOST_CID

RESETS_LIMIT = 256
TURN_PACKETS = 256
TURN_BYTES = 64 * 1024
APPETITE_LIMIT = 32
"""How many of the guest's buffers one read from the host may fill."""
PATIENCE_S = 10.0
"""How long a guest may take to answer a request, and to take leave once both directions have ended."""


class Ports(NamedTuple):
    """Both ends of a packet that belongs to no connection."""

    host_cid: int
    host_port: int
    guest_port: int


class Traffic:
    """See the rules above. `dial` connects to what listens for the guest at a port, or gives None."""

    def __init__(
        self,
        guest_cid: int,
        dial: Callable[[int], socket.socket | None],
        *,
        opened: Callable[[HostEnd], None],
        closed: Callable[[HostEnd], None],
        clock: Callable[[], float],
    ) -> None:
        self._guest_cid = guest_cid
        self._dial, self._opened, self._closed, self._clock = dial, opened, closed, clock
        self._ports = HostPorts()
        self._ends: dict[Key, HostEnd] = {}
        self._leaving: set[HostEnd] = set()
        self._listed: deque[HostEnd] = deque()
        self._resets: dict[Ports, Header] = {}
        self._due: dict[HostEnd, float] = {}
        self.rx: Ring | None = None
        self.tx: Ring | None = None
        self.call_rx = self.call_tx = False
        """Whether the guest wants to be called; whoever calls it takes it back."""
        self._held = False
        self.dropped = 0
        """Packets that were no packets, or not the guest's own."""

    @property
    def connections(self) -> int:
        """How many there are, those included that only have to be written out."""
        return len(self._ends) + len(self._leaving)

    # -- from the host -----------------------------------------------------------------------------------------------

    def connect(self, client: socket.socket, port: int) -> HostEnd | None:
        """Ask the guest for a connection to `port`; None if no more are possible, or the guest is not there."""
        if self.rx is None or self.tx is None or self.connections >= CONNECTION_LIMIT:
            return None
        key = Key(port, self._ports.take())
        while key in self._ends:
            key = Key(port, self._ports.take())
        end = HostEnd(Connection(key, room=room_for(self.connections)), client)
        self._ends[key] = end
        self._expect(end)
        self.enlist(end)
        return end

    def heed(self, end: HostEnd, *, readable: bool, writable: bool, hung_up: bool) -> None:
        """The host's socket has changed. Edges are told once."""
        end.readable = end.readable or readable
        end.hung_up = end.hung_up or hung_up
        if hung_up:
            end.connection.finish(packet.RECEIVES_NO_MORE)
        if writable or hung_up:
            end.flush()
        self._settle(end)

    def abandon(self, end: HostEnd) -> None:
        """The host's end goes away in the midst of all."""
        if self._ends.get(end.connection.key) is end:
            self._reset(end)

    def expire(self) -> None:
        """Reset what the guest has not answered in time."""
        now = self._clock()
        while self._due:
            end, due = next(iter(self._due.items()))
            if due > now:
                return
            del self._due[end]
            self.abandon(end)

    @property
    def next_due(self) -> float | None:
        """When `expire` has something to do."""
        return next(iter(self._due.values()), None)

    def reset_all(self) -> None:
        """The guest is gone, or its rings are: close every end."""
        for end in [*self._ends.values(), *self._leaving]:
            self._forget(end)
        self._resets.clear()
        self._listed.clear()

    # -- from the guest ----------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Take from the guest and give to it, within bounds; whether there is more to do at once."""
        more = self._receive()
        return self._send() or more or (self._held and len(self._resets) < RESETS_LIMIT)

    def _receive(self) -> bool:
        ring = self.tx
        if ring is None:
            return False
        ring.ignore()
        try:
            for _ in range(TURN_PACKETS):
                self._held = len(self._resets) >= RESETS_LIMIT
                if self._held:
                    return False
                chain = ring.take()
                if chain is not None:
                    self._take(chain)
                    ring.put(chain.head, 0)
                elif not ring.listen():
                    return False
        finally:
            self.call_tx = ring.publish() or self.call_tx
        return True

    def _take(self, chain: Chain) -> None:
        parsed = packet.parse_header(chain.views)
        if parsed is None or parsed[0].src_cid != self._guest_cid:
            self.dropped += 1
            return
        header, views = parsed
        end = self._ends.get(Key(header.src_port, header.dst_port))
        if header.dst_cid != HOST_CID or header.type != packet.STREAM:
            self._refuse(header)
        elif end is None:
            if header.op == packet.REQUEST:
                self._accept(header)
            else:
                self._refuse(header)
        elif header.op == packet.RW:
            self._take_data(end, header, views)
        else:
            self._act(end, end.connection.receive(header))

    def _take_data(self, end: HostEnd, header: Header, views: list[memoryview]) -> None:
        if sum(map(len, views)) < header.length:
            self._act(end, Happened.BREACH)
            return
        happened = end.connection.receive(header)
        if happened is Happened.DATA:
            end.write(packet.split(views, header.length)[0], header.length)
        self._act(end, happened)

    def _accept(self, header: Header) -> None:
        host = self._dial(header.dst_port) if self.connections < CONNECTION_LIMIT else None
        if host is None:
            self._refuse(header)
            return
        key = Key(header.src_port, header.dst_port)
        self._resets.pop(Ports(HOST_CID, key.host_port, key.guest_port), None)
        end = HostEnd(Connection(key, room=room_for(self.connections), request=header), host)
        self._ends[key] = end
        self._opened(end)
        self.enlist(end)

    def _refuse(self, header: Header) -> None:
        if header.op != packet.RST:
            ports = Ports(header.dst_cid, header.dst_port, header.src_port)
            self._resets[ports] = self._compose_reset(ports, header.type)

    def _act(self, end: HostEnd, happened: Happened) -> None:
        if happened is Happened.OPENED:
            self._due.pop(end, None)
            self._opened(end)
        elif happened is Happened.HALF_CLOSED:
            end.heed_shutdown()
        elif happened is Happened.BREACH:
            self._reset(end)
            return
        elif happened is not Happened.NOTHING and happened is not Happened.DATA:
            self._let_go(end, answer=happened is Happened.DONE)
            return
        self._settle(end)

    # -- the life of an end ------------------------------------------------------------------------------------------

    def enlist(self, end: HostEnd) -> None:
        """It may have something for the guest."""
        if not end.listed:
            end.listed = True
            self._listed.append(end)

    def _settle(self, end: HostEnd) -> None:
        connection = end.connection
        if end.finished:
            self._forget(end)
        if connection.state is State.CLOSED:
            return
        if connection.host_done == packet.DONE and end not in self._due:
            self._expect(end)
        may_read = end.readable and connection.may_send
        if may_read and not connection.credit:
            # It comes back by the guest's next word on credit.
            connection.stall()
            may_read = False
        if connection.owes or may_read:
            self.enlist(end)

    def _let_go(self, end: HostEnd, *, answer: bool) -> None:
        """The guest is done. What it sent is written out before the socket is closed."""
        if answer:
            self._owe_reset(end.connection.key)
        self._ends.pop(end.connection.key, None)
        self._due.pop(end, None)
        end.leave()
        if end.finished:
            self._forget(end)
        else:
            self._leaving.add(end)

    def _reset(self, end: HostEnd) -> None:
        self._owe_reset(end.connection.key)
        self._forget(end)

    def _forget(self, end: HostEnd) -> None:
        end.connection.state = State.CLOSED
        if self._ends.get(end.connection.key) is end:
            del self._ends[end.connection.key]
        self._due.pop(end, None)
        self._leaving.discard(end)
        self._closed(end)
        end.close()

    def _expect(self, end: HostEnd) -> None:
        self._due.pop(end, None)
        self._due[end] = self._clock() + PATIENCE_S

    def _owe_reset(self, key: Key) -> None:
        ports = Ports(HOST_CID, key.host_port, key.guest_port)
        self._resets[ports] = self._compose_reset(ports, packet.STREAM)

    def _compose_reset(self, ports: Ports, kind: int) -> Header:
        return Header(ports.host_cid, self._guest_cid, ports.host_port, ports.guest_port, 0, kind, packet.RST)

    # -- to the guest ------------------------------------------------------------------------------------------------

    def _send(self) -> bool:
        ring = self.rx
        if ring is None:
            return False
        ring.ignore()
        left = TURN_PACKETS
        try:
            while left > 0:
                if not self._resets and not self._listed:
                    return False
                sent = self._send_reset(ring) if self._resets else self._serve(self._listed[0], ring)
                if not sent and not ring.listen():
                    return False
                left -= sent
        finally:
            self.call_rx = ring.publish() or self.call_rx
        return True

    def _send_reset(self, ring: Ring) -> int:
        ports = next(iter(self._resets))
        if not self._put(ring, self._resets[ports]):
            return 0
        del self._resets[ports]
        return 1

    def _serve(self, end: HostEnd, ring: Ring) -> int:
        """One turn of the first of the listed; how many packets, 0 if the guest has no buffers."""
        connection = end.connection
        sent = 0
        while connection.owes and connection.state is not State.CLOSED:
            chain = ring.take()
            if chain is None:
                return sent
            op, flags = connection.next_owed()
            self._fill(ring, chain, connection.compose(self._guest_cid, HOST_CID, op, flags=flags))
            sent += 1
        if end.readable and connection.may_send:
            room = min(connection.credit, TURN_BYTES)
            buffers = _take_buffers(ring, room, end.appetite)
            if buffers:
                sent += self._read(end, ring, buffers, room)
            elif room:
                return sent
        self._listed.popleft()
        end.listed = False
        self._settle(end)
        return max(sent, 1)

    def _read(self, end: HostEnd, ring: Ring, buffers: list[Buffer], room: int) -> int:
        views, _ = packet.split([view for buffer in buffers for view in buffer.data], room)
        count = end.read_into(views)
        if not count:
            ring.give_back(len(buffers))
            if count == 0:
                end.readable = False
                end.connection.finish(packet.DONE if end.hung_up else packet.SENDS_NO_MORE)
            return 0
        connection = end.connection
        connection.sent(count)
        used = 0
        while count:
            buffer = buffers[used]
            length = min(count, buffer.size)
            header = connection.compose(self._guest_cid, HOST_CID, packet.RW, length=length)
            packet.write_header(buffer.chain.views, header)
            ring.put(buffer.chain.head, SIZE + length)
            count -= length
            used += 1
        if used < len(buffers):
            ring.give_back(len(buffers) - used)
            end.appetite = used
        else:
            end.appetite = min(4 * used, APPETITE_LIMIT)
        return used

    def _put(self, ring: Ring, header: Header) -> bool:
        chain = ring.take()
        if chain is not None:
            self._fill(ring, chain, header)
        return chain is not None

    def _fill(self, ring: Ring, chain: Chain, header: Header) -> None:
        if sum(map(len, chain.views)) < SIZE:
            raise GuestError("a buffer without room for a packet's header")
        packet.write_header(chain.views, header)
        ring.put(chain.head, SIZE)


class Buffer(NamedTuple):
    """One of the guest's buffers, and the part of it that data goes to."""

    chain: Chain
    data: list[memoryview]
    size: int


def _take_buffers(ring: Ring, room: int, most: int) -> list[Buffer]:
    buffers: list[Buffer] = []
    while room > 0 and len(buffers) < most:
        chain = ring.take()
        if chain is None:
            break
        _, data = packet.split(chain.views, SIZE)
        size = sum(map(len, data))
        if not size:
            raise GuestError("a buffer without room for data")
        buffers.append(Buffer(chain, data, size))
        room -= size
    return buffers


def announce_reset(ring: Ring) -> bool:
    """Tell the guest by its event queue that its connections are gone; whether it wants to be called for it."""
    chain = ring.take()
    if chain is None or len(chain.views) != 1 or len(chain.views[0]) < len(packet.TRANSPORT_RESET):
        return False
    chain.views[0][: len(packet.TRANSPORT_RESET)] = packet.TRANSPORT_RESET
    ring.put(chain.head, len(packet.TRANSPORT_RESET))
    return ring.publish()
