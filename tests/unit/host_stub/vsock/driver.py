"""A guest to play with: its memory in a memfd, a driver's side of the queues, and a machine monitor's side of the protocol.

Nothing waits: the server under test turns in the same thread, by `Bench.settle`, until it has nothing to do any more.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from host_stub.vsock import device, messages, packet
from host_stub.vsock.hybrid import listen, remove
from host_stub.vsock.messages import Ask
from host_stub.vsock.packet import Header, compose_header
from host_stub.vsock.ring import INDIRECT, NEXT, WRITE
from host_stub.vsock.server import Server

CID = 7
GUEST_BASE, USER_BASE = 0x4000_0000, 0x7F00_0000_0000
MEMORY_BYTES = 4 << 20
QUEUE_SIZE = 16
BUFFER_BYTES = 4096 + packet.SIZE
FEATURES = device.VERSION_1 | device.PROTOCOL_FEATURES | device.INDIRECT_DESC
_TURNS = 10_000


class Queue:
    """The driver's side of one queue. Its descriptors are a free list; every buffer has a place of its own behind the rings."""

    def __init__(self, memory: memoryview, at: int, *, size: int = QUEUE_SIZE, event_idx: bool = False) -> None:
        self.memory, self.at, self.size, self.event_idx = memory, at, size, event_idx
        self.descriptors, self.available = at, at + 16 * size
        self.used = (self.available + 6 + 2 * size + 3) & ~3
        self.buffers = (self.used + 6 + 8 * size + 15) & ~15
        self.free = list(range(size))
        self.chains: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
        self.offered = self.seen = 0
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.error_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self) -> None:
        for fd in (self.kick_fd, self.call_fd, self.error_fd):
            os.close(fd)

    def word(self, at: int, value: int | None = None) -> int:
        if value is not None:
            struct.pack_into("<H", self.memory, at, value & 0xFFFF)
        found: int = struct.unpack_from("<H", self.memory, at)[0]
        return found

    def describe(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.memory, self.descriptors + 16 * index, address, length, flags, following)

    def offer(self, pieces: Sequence[tuple[int, int]], flags: int) -> int:
        """A chain over pieces (offset, length) of the memory."""
        indices = [self.free.pop(0) for _ in pieces]
        for at, (index, (offset, length)) in enumerate(zip(indices, pieces, strict=True)):
            more = at + 1 < len(indices)
            self.describe(
                index, GUEST_BASE + offset, length, flags | (NEXT if more else 0), indices[at + 1] if more else 0
            )
        self.chains[indices[0]] = (indices, list(pieces))
        self.expose(indices[0])
        return indices[0]

    def offer_indirect(self, pieces: Sequence[tuple[int, int]], flags: int, table: int) -> int:
        """The same by a table of its own at `table`."""
        for at, (offset, length) in enumerate(pieces):
            last = at + 1 == len(pieces)
            row = (GUEST_BASE + offset, length, flags | (0 if last else NEXT), 0 if last else at + 1)
            struct.pack_into("<QIHH", self.memory, table + 16 * at, *row)
        index = self.free.pop(0)
        self.describe(index, GUEST_BASE + table, 16 * len(pieces), INDIRECT)
        self.chains[index] = ([index], list(pieces))
        self.expose(index)
        return index

    def expose(self, head: int) -> None:
        self.word(self.available + 4 + 2 * (self.offered % self.size), head)
        self.offered = (self.offered + 1) & 0xFFFF
        self.word(self.available + 2, self.offered)

    def kick(self) -> None:
        os.eventfd_write(self.kick_fd, 1)

    def called(self) -> int:
        with contextlib.suppress(BlockingIOError):
            return os.eventfd_read(self.call_fd)
        return 0

    def failed(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return os.eventfd_read(self.error_fd) > 0
        return False

    def collect(self) -> Iterator[tuple[list[tuple[int, int]], int]]:
        """What was used since the last time: the pieces and how much was written."""
        while self.seen != self.word(self.used + 2):
            head, written = struct.unpack_from("<II", self.memory, self.used + 4 + 8 * (self.seen % self.size))
            self.seen = (self.seen + 1) & 0xFFFF
            indices, pieces = self.chains.pop(head)
            self.free += indices
            yield pieces, written


class Guest:
    """Memory and queues, and a driver's ways with them."""

    def __init__(
        self, *, queue_size: int = QUEUE_SIZE, event_idx: bool = False, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.memory_fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.memory_fd, memory_bytes)
        self._map = mmap.mmap(self.memory_fd, memory_bytes)
        self.memory = memoryview(self._map)
        self.event_idx = event_idx
        stride = memory_bytes // 4
        self.stride = stride
        self.rx, self.tx, self.events = (
            Queue(self.memory, index * stride, size=queue_size, event_idx=event_idx) for index in range(3)
        )
        self.queues = (self.rx, self.tx, self.events)
        self.spare = 3 * stride
        self.got: list[tuple[Header, bytes]] = []
        """Packets from the device that no test has asked for yet."""

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
        self.memory.release()
        self._map.close()
        os.close(self.memory_fd)

    # -- a driver's ways ---------------------------------------------------------------------------------------------

    def refill(self, count: int | None = None, *, size: int = BUFFER_BYTES) -> None:
        """Give the device buffers, as many as the queue has room for, and kick."""
        rx = self.rx
        for _ in range(len(rx.free) if count is None else count):
            rx.offer([(rx.buffers + rx.free[0] * (size + 16 & ~15), size)], WRITE)
        rx.kick()

    def put(self, header: Header, data: bytes = b"", *, split_header: bool = True) -> None:
        """Send one packet and kick."""
        tx = self.tx
        list(tx.collect())
        room = (self.stride - (tx.buffers - tx.at)) // tx.size & ~15
        at = tx.buffers + tx.free[0] * room
        raw = compose_header(header) + data
        assert len(raw) <= room
        self.memory[at : at + len(raw)] = raw
        whole = [(at, packet.SIZE), (at + packet.SIZE, len(data))] if split_header and data else [(at, len(raw))]
        tx.offer(whole, 0)
        tx.kick()

    def send(self, guest_port: int, host_port: int, op: int, data: bytes = b"", **fields: int) -> None:
        """Send a packet to CID 2 with a plausible header; `fields` change it."""
        plain = Header(CID, 2, guest_port, host_port, len(data), packet.STREAM, op, 0, 1 << 20, 0)
        self.put(plain._replace(**fields), data)

    def take_all(self, *, refill: bool = True) -> list[tuple[Header, bytes]]:
        """Every packet that has come, in order."""
        for pieces, written in self.rx.collect():
            raw = b"".join(bytes(self.memory[at : at + length]) for at, length in pieces)[:written]
            parsed = packet.parse_header([memoryview(raw)])
            assert parsed is not None
            header, rest = parsed
            data = b"".join(rest)
            assert len(data) == header.length
            self.got.append((header, data))
        if refill:
            self.refill()
        taken, self.got = self.got, []
        return taken


class Monitor:
    """The front end's side of the protocol, over a real socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(os.fspath(path))
        self.socket.setblocking(False)

    def ask(self, ask: int, payload: bytes = b"", fds: Sequence[int] = (), *, flags: int = 1) -> None:
        raw = messages.HEADER.pack(ask, flags, len(payload)) + payload
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([raw], ancillary)

    def reply(self) -> tuple[int, bytes] | None:
        """One reply, or None if none is there."""
        try:
            raw = self.socket.recv(messages.HEADER.size)
        except BlockingIOError:
            return None
        if not raw:
            raise EOFError
        ask, flags, size = messages.HEADER.unpack(raw)
        assert flags == 5
        return ask, self.socket.recv(size) if size else b""

    def close(self) -> None:
        self.socket.close()

    def start(
        self,
        guest: Guest,
        *,
        features: int = FEATURES,
        queues: Sequence[int] = (0, 1),
        base: int = 0,
        memory: bool = True,
    ) -> None:
        """All that QEMU says until the rings run."""
        if guest.event_idx:
            features |= device.EVENT_IDX
        self.ask(Ask.SET_OWNER)
        self.ask(Ask.SET_PROTOCOL_FEATURES, messages.compose_u64(device.REPLY_ACK | device.CONFIG))
        self.ask(Ask.SET_FEATURES, messages.compose_u64(features))
        if memory:
            self.ask(
                Ask.SET_MEM_TABLE, compose_memory([(GUEST_BASE, len(guest.memory), USER_BASE, 0)]), [guest.memory_fd]
            )
        for index in queues:
            queue = guest.queues[index]
            self.ask(Ask.SET_VRING_NUM, struct.pack("=II", index, queue.size))
            self.ask(Ask.SET_VRING_BASE, struct.pack("=II", index, base))
            self.ask(Ask.SET_VRING_ADDR, compose_addresses(index, queue))
            self.ask(Ask.SET_VRING_CALL, messages.compose_u64(index), [queue.call_fd])
            self.ask(Ask.SET_VRING_ERR, messages.compose_u64(index), [queue.error_fd])
            self.ask(Ask.SET_VRING_KICK, messages.compose_u64(index), [queue.kick_fd])
        for index in queues:
            self.ask(Ask.SET_VRING_ENABLE, struct.pack("=II", index, 1))


def compose_memory(rows: Sequence[tuple[int, int, int, int]]) -> bytes:
    return struct.pack("=II", len(rows), 0) + b"".join(struct.pack("=QQQQ", *row) for row in rows)


def compose_addresses(index: int, queue: Queue) -> bytes:
    places = (USER_BASE + queue.descriptors, USER_BASE + queue.used, USER_BASE + queue.available)
    return struct.pack("=IIQQQQ", index, 0, *places, 0)


class Clock:
    """Time that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A server with a guest plugged into it."""

    def __init__(
        self,
        place: Path,
        *,
        allowed_ports: frozenset[int] | None = None,
        event_idx: bool = False,
        queue_size: int = QUEUE_SIZE,
        queues: Sequence[int] = (0, 1),
        base: int = 0,
        start: bool = True,
    ) -> None:
        self.place = place
        self.monitor_path, self.hybrid_path = place / "monitor", place / "vsock"
        self.clock = Clock()
        self.said: list[str] = []
        self._monitors = listen(self.monitor_path)
        self.server = Server(
            monitors=self._monitors,
            hybrid_path=self.hybrid_path,
            cid=CID,
            allowed_ports=allowed_ports,
            say=self.said.append,
            clock=self.clock,
        )
        self.guest = Guest(event_idx=event_idx, queue_size=queue_size)
        self.monitor = Monitor(self.monitor_path)
        self._sockets: list[socket.socket] = []
        if start:
            self.monitor.start(self.guest, queues=queues, base=base)
            self.settle()
            self.guest.refill()
            self.settle()

    def close(self) -> None:
        for each in self._sockets:
            each.close()
        self.monitor.close()
        self.server.close()
        self.guest.close()
        self._monitors.close()
        remove(self.monitor_path)

    def settle(self) -> int:
        """Turn until there is nothing to do; how many turns. More than any sane work takes is a busy loop."""
        for turns in range(_TURNS):
            if not self.server.turn(0):
                return turns
        raise AssertionError("the server never comes to rest")

    def client(self, port: int | None = None) -> socket.socket:
        """A client of the hybrid socket; with a port it has said CONNECT."""
        client = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.connect(os.fspath(self.hybrid_path))
        client.setblocking(False)
        if port is not None:
            client.send(b"CONNECT %d\n" % port)
            self.settle()
        return client

    def service(self, port: int) -> socket.socket:
        """What listens for the guest at a port."""
        return self._keep(listen(Path(f"{self.hybrid_path}_{port}")))

    def accept(self, service: socket.socket) -> socket.socket:
        host, _ = service.accept()
        host.setblocking(False)
        return self._keep(host)

    def _keep(self, each: socket.socket) -> socket.socket:
        self._sockets.append(each)
        return each

    # -- whole conversations -----------------------------------------------------------------------------------------

    def packets(self) -> list[tuple[Header, bytes]]:
        """Settle, and take what the guest got."""
        self.settle()
        taken = self.guest.take_all()
        self.settle()
        return taken

    def open_to_guest(self, port: int = 5005, *, room: int = 1 << 20) -> tuple[socket.socket, int]:
        """A client joined to the guest's `port`; the socket and the host's port of it."""
        client = self.client(port)
        ((request, _),) = self.packets()
        assert (request.op, request.dst_port) == (packet.REQUEST, port)
        self.guest.send(port, request.src_port, packet.RESPONSE, buf_alloc=room)
        self.settle()
        assert client.recv(64) == b"OK %d\n" % request.src_port
        return client, request.src_port

    def open_to_host(
        self, service: socket.socket, port: int, guest_port: int = 4000, *, room: int = 1 << 20
    ) -> socket.socket:
        """The guest joined to what listens at `port`."""
        self.guest.send(guest_port, port, packet.REQUEST, buf_alloc=room)
        ((response, _),) = self.packets()
        assert response.op == packet.RESPONSE
        return self.accept(service)


def ops(packets: list[tuple[Header, bytes]]) -> list[int]:
    return [header.op for header, _ in packets]


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def read_all(client: socket.socket) -> bytes:
    got = b""
    try:
        while data := client.recv(1 << 16):
            got += data
    except BlockingIOError:
        pass
    return got
