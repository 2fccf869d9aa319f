"""The device's traffic between a driver and sockets, without a monitor, a loop or time."""

from __future__ import annotations

import socket
import struct

from host_stub.vsock.memory import GuestMemory
from host_stub.vsock.messages import Region, VringAddresses
from host_stub.vsock.ring import Ring
from host_stub.vsock.streams import HostEnd
from host_stub.vsock.traffic import Traffic
from tests.unit.host_stub.vsock.driver import CID, GUEST_BASE, USER_BASE, Clock, Guest, compose_addresses


class Room:
    """`hosts` are the far ends of what the guest has dialled."""

    def __init__(self, *, queue_size: int = 16) -> None:
        self.guest = Guest(queue_size=queue_size)
        self.memory = GuestMemory([Region(GUEST_BASE, len(self.guest.memory), USER_BASE, 0)], [self.guest.memory_fd])
        self.clock = Clock()
        self.opened: list[HostEnd] = []
        self.closed: list[HostEnd] = []
        self.dialled: list[int] = []
        self.hosts: list[socket.socket] = []
        self.traffic = Traffic(CID, self.dial, opened=self.opened.append, closed=self.closed.append, clock=self.clock)
        self.traffic.rx, self.traffic.tx = self.ring(0), self.ring(1)

    def ring(self, index: int) -> Ring:
        where = VringAddresses(*struct.unpack("=IIQQQQ", compose_addresses(index, self.guest.queues[index])))
        return Ring(
            self.memory,
            where,
            size=self.guest.queues[index].size,
            base=0,
            event_idx=False,
            indirect=False,
            writable=index != 1,
        )

    def dial(self, port: int) -> socket.socket | None:
        self.dialled.append(port)
        host, ours = socket.socketpair()
        ours.setblocking(False)
        self.hosts.append(host)
        return ours

    def turn(self) -> list[int]:
        """Until there is nothing to do; the operations the guest got."""
        while self.traffic.turn():
            pass
        return [header.op for header, _ in self.guest.take_all()]

    def close(self) -> None:
        self.traffic.reset_all()
        for ring in (self.traffic.rx, self.traffic.tx):
            if ring is not None:
                ring.close()
        for host in self.hosts:
            host.close()
        self.memory.close()
        self.guest.close()
