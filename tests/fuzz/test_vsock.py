"""Whatever a guest writes into its queues and a monitor into its socket, the device answers, breaks that ring or ends that conversation,
with bounded work, no other error and no descriptor lost. And whatever the sizes, the credit and the pauses, a stream loses, doubles and
turns nothing.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from host_stub.vsock import messages, packet
from host_stub.vsock.memory import GuestError, GuestMemory
from host_stub.vsock.messages import Ask, FrontEndError, MessageReader, Region, VringAddresses
from host_stub.vsock.packet import Header
from host_stub.vsock.ring import Ring
from host_stub.vsock.traffic import TURN_PACKETS
from tests.unit.host_stub.vsock.driver import CID, GUEST_BASE, QUEUE_SIZE, USER_BASE, Bench, Guest, compose_addresses
from tests.unit.host_stub.vsock.traffic_room import Room

_u32 = st.one_of(
    st.integers(0, 3), st.sampled_from([0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, (1 << 32) - 1)
)
_asks = st.one_of(st.sampled_from([int(ask) for ask in Ask]), st.integers(0, 60))


# -- the monitor's messages -------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_any_bytes_are_messages_or_a_breach_however_they_are_cut(data: bytes, steps: list[int]) -> None:
    reader = MessageReader()
    at = turn = 0
    with contextlib.suppress(FrontEndError):
        while at < len(data):
            step = min(reader.wanted, steps[turn % len(steps)], len(data) - at)
            if reader.feed(data[at : at + step]) is None and reader.wanted == 0:
                reader.feed(b"")
            at, turn = at + step, turn + 1


@contextlib.contextmanager
def _bench() -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryDirectory(prefix="coworkd-fuzz-") as name:
        bench = Bench(Path(name), start=False)
        try:
            yield bench
        finally:
            bench.close()
    assert len(os.listdir("/proc/self/fd")) == before


class _Said(NamedTuple):
    ask: int
    payload: bytes
    fds: int
    flags: int


_words = st.lists(
    st.one_of(_u32.map(lambda n: struct.pack("=I", n)), st.sampled_from([struct.pack("=Q", USER_BASE)])), max_size=14
)
_said = st.builds(_Said, _asks, _words.map(b"".join), st.integers(0, 2), st.sampled_from([1, 1, 1, 9, 0, 5]))


@settings(max_examples=60, deadline=None)
@given(st.lists(_said, max_size=12))
def test_any_conversation_of_a_monitor_leaves_a_server_that_serves(said: list[_Said]) -> None:
    with _bench() as bench:
        if len(said) % 2:
            bench.monitor.start(bench.guest)
        for each in said:
            raw = messages.HEADER.pack(each.ask, each.flags, len(each.payload)) + each.payload
            kinds = [bench.guest.memory_fd, bench.guest.tx.kick_fd][: each.fds]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", kinds))] if kinds else []
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                bench.monitor.socket.sendmsg([raw], rights)
            bench.settle()
        bench.monitor.close()
        bench.settle()
        bench.monitor = type(bench.monitor)(bench.monitor_path)
        bench.guest.close()
        bench.guest = Guest()
        bench.monitor.start(bench.guest)
        bench.settle()
        bench.guest.refill()
        bench.open_to_guest()


# -- the guest's queues -----------------------------------------------------------------------------------------------

_descriptor = st.builds(
    lambda address, length, flags, following: struct.pack("<QIHH", address, length, flags, following),
    st.one_of(st.integers(GUEST_BASE, GUEST_BASE + 4096), st.integers(0, (1 << 64) - 1)),
    st.one_of(st.sampled_from([0, 1, 16, 32, 44, 48, 256]), _u32),
    st.integers(0, 7),
    st.integers(0, QUEUE_SIZE + 1),
)


@given(
    st.lists(_descriptor, min_size=QUEUE_SIZE, max_size=QUEUE_SIZE),
    st.lists(_descriptor, max_size=QUEUE_SIZE),
    st.lists(st.integers(0, QUEUE_SIZE), min_size=QUEUE_SIZE, max_size=QUEUE_SIZE),
    st.one_of(st.integers(0, QUEUE_SIZE), st.integers(0, 0xFFFF)),
    st.booleans(),
)
def test_any_queue_gives_chains_within_the_memory_or_breaks(
    table: list[bytes], indirect: list[bytes], heads: list[int], offered: int, writable: bool
) -> None:
    guest = Guest()
    memory = GuestMemory([Region(GUEST_BASE, len(guest.memory), USER_BASE, 0)], [guest.memory_fd])
    queue = guest.rx
    for at, rows in ((queue.descriptors, table), (queue.buffers, indirect)):
        guest.memory[at : at + 16 * len(rows)] = b"".join(rows)
    for head in heads:
        queue.expose(head)
    queue.word(queue.available + 2, offered)
    where = VringAddresses(*struct.unpack("=IIQQQQ", compose_addresses(0, queue)))
    ring = Ring(memory, where, size=QUEUE_SIZE, base=0, event_idx=False, indirect=True, writable=writable)
    taken = 0
    with contextlib.suppress(GuestError):
        while (chain := ring.take()) is not None:
            taken += 1
            assert len(chain.views) <= 2 * QUEUE_SIZE
            for view in chain.views:
                view.release()
    assert taken <= QUEUE_SIZE
    ring.close()
    del ring
    guest.close()


_ports = st.sampled_from([1, 4000, 5005, 5006, 1 << 30, (1 << 30) + 1])
_headers = st.builds(
    Header,
    st.sampled_from([CID, CID, CID, CID, 2, 99]),
    st.sampled_from([2, 2, 2, 2, 1, CID]),
    _ports,
    _ports,
    st.one_of(st.integers(0, 64), _u32),
    st.sampled_from([1, 1, 1, 1, 2, 0]),
    st.integers(0, 9),
    st.integers(0, 5),
    _u32,
    _u32,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_headers, st.binary(max_size=64)), max_size=40))
def test_any_packets_are_answered_with_bounded_work(packets: list[tuple[Header, bytes]]) -> None:
    room = Room()
    client, ours = socket.socketpair()
    room.traffic.connect(ours, 5005)
    room.guest.refill()
    for header, data in packets:
        room.guest.put(header, data)
        for turn in range(4):
            if not room.traffic.turn():
                break
            assert turn < 3
        for got, _ in room.guest.take_all():
            assert got.op != packet.RW
            assert got.dst_cid == CID
    # Resets and answers, one owed packet of each kind a connection: never more than one for each packet and a few for the ends.
    assert room.traffic.connections <= len(packets) + 1
    client.close()
    room.close()


# -- streams ----------------------------------------------------------------------------------------------------------


class _Step(NamedTuple):
    """One thing one side does: the guest or the host writes, reads, or gives credit or buffers."""

    what: str
    size: int


_steps = st.lists(
    st.builds(
        _Step, st.sampled_from(["guest writes", "host writes", "host reads", "guest reads"]), st.integers(1, 9000)
    ),
    max_size=60,
)


def _open_stream(guest_room: int, buffer: int) -> Room:
    """The guest joined to what listens at port 5006."""
    room = Room()
    room.guest.refill(size=packet.SIZE + buffer)
    room.guest.send(4000, 5006, packet.REQUEST, buf_alloc=guest_room)
    while room.traffic.turn():
        pass
    room.guest.take_all(refill=False)
    room.hosts[0].setblocking(False)
    return room


def _kept_buffers(room: Room) -> int:
    """How many of the guest's buffers the device has taken and neither used nor left for later."""
    assert room.traffic.rx is not None
    untaken = (room.guest.rx.offered - room.traffic.rx.base) & 0xFFFF
    return len(room.guest.rx.chains) - untaken


@settings(max_examples=80, deadline=None)
@given(_steps, st.integers(1, 20_000), st.integers(1, 5000))
@example([_Step("host writes", 2450), _Step("guest reads", 1)] * 20, 20_000, 100)
@example([_Step("host writes", 9000)] * 5 + [_Step("guest reads", 1)] * 60, 1, 45)
def test_two_streams_lose_double_and_turn_nothing(steps: list[_Step], guest_room: int, buffer: int) -> None:
    room = _open_stream(guest_room, buffer)
    guest, host, end = room.guest, room.hosts[0], room.opened[0]
    to_host, to_guest = bytearray(), bytearray()
    at_host, at_guest = bytearray(), bytearray()
    received = passed_on = host_passed_on = host_room = 0

    def exchange() -> None:
        nonlocal received, host_passed_on, host_room
        room.traffic.heed(end, readable=True, writable=True, hung_up=False)
        for _ in range(TURN_PACKETS):
            if not room.traffic.turn():
                break
        for header, data in guest.take_all(refill=False):
            assert header.op in (packet.RW, packet.CREDIT_UPDATE, packet.CREDIT_REQUEST)
            host_passed_on, host_room = header.fwd_cnt, header.buf_alloc
            received += len(data)
            at_guest.extend(data)
        assert received - passed_on <= guest_room
        guest.refill(size=packet.SIZE + buffer)

    def guest_reads() -> None:
        nonlocal passed_on
        passed_on = received
        guest.send(4000, 5006, packet.CREDIT_UPDATE, buf_alloc=guest_room, fwd_cnt=passed_on)
        exchange()

    host_room = 1 << 16
    for step in steps:
        data = bytes((len(to_host) + len(to_guest) + at) % 251 for at in range(step.size))
        if step.what == "guest writes":
            data = data[: max(0, host_room - (len(to_host) - host_passed_on))]
            to_host += data
            guest.send(4000, 5006, packet.RW, data, buf_alloc=guest_room, fwd_cnt=passed_on)
        elif step.what == "host writes":
            with contextlib.suppress(BlockingIOError):
                to_guest += data[: host.send(data)]
        elif step.what == "host reads":
            with contextlib.suppress(BlockingIOError):
                at_host += host.recv(step.size)
        else:
            guest_reads()
        exchange()
    while len(at_host) < len(to_host):
        at_host += host.recv(1 << 16)
        exchange()
    guest_room = 1 << 20
    for _ in range(len(to_guest) // buffer + 2):
        if len(at_guest) == len(to_guest):
            break
        guest_reads()
    assert at_host == to_host
    assert at_guest == to_guest
    assert _kept_buffers(room) == 0
    room.close()
