from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from host_stub.vsock.memory import GuestError, GuestMemory
from host_stub.vsock.messages import Region, VringAddresses
from host_stub.vsock.ring import INDIRECT, NEXT, WRITE, Ring
from tests.unit.host_stub.vsock.driver import GUEST_BASE, QUEUE_SIZE, USER_BASE, Guest, Queue, compose_addresses


class Pair:
    """A driver's queue and the device's ring on the same memory."""

    def __init__(self, *, event_idx: bool = False, indirect: bool = True, writable: bool = False) -> None:
        self.guest = Guest(event_idx=event_idx)
        self.memory = GuestMemory([Region(GUEST_BASE, len(self.guest.memory), USER_BASE, 0)], [self.guest.memory_fd])
        self.queue: Queue = self.guest.tx
        self.ring = self.open(event_idx=event_idx, indirect=indirect, writable=writable)

    def open(
        self,
        *,
        size: int = QUEUE_SIZE,
        base: int = 0,
        shift: int = 0,
        event_idx: bool = False,
        indirect: bool = True,
        writable: bool = False,
    ) -> Ring:
        where = VringAddresses(*struct.unpack("=IIQQQQ", compose_addresses(1, self.queue)))
        where = where._replace(descriptors=where.descriptors + shift)
        return Ring(self.memory, where, size=size, base=base, event_idx=event_idx, indirect=indirect, writable=writable)

    def close(self) -> None:
        self.ring.close()
        self.memory.close()
        self.guest.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_chains_come_in_order_and_go_back(pair: Pair) -> None:
    queue, ring = pair.queue, pair.ring
    pair.guest.memory[queue.buffers : queue.buffers + 6] = b"abcdef"
    first = queue.offer([(queue.buffers, 2), (queue.buffers + 2, 1)], 0)
    second = queue.offer([(queue.buffers + 3, 3)], 0)
    one, two = ring.take(), ring.take()
    assert one is not None
    assert two is not None
    assert ring.take() is None
    assert (one.head, [bytes(view) for view in one.views]) == (first, [b"ab", b"c"])
    assert (two.head, [bytes(view) for view in two.views]) == (second, [b"def"])
    ring.put(one.head, 0)
    ring.put(two.head, 3)
    assert queue.word(queue.used + 2) == 0
    assert ring.publish()
    assert not ring.publish()
    assert [written for _, written in queue.collect()] == [0, 3]


def test_a_chain_given_back_is_taken_again(pair: Pair) -> None:
    queue, ring = pair.queue, pair.ring
    heads = [queue.offer([(queue.buffers, 1)], 0) for _ in range(3)]
    taken = [ring.take() for _ in range(3)]
    assert [chain.head for chain in taken if chain] == heads
    ring.give_back(2)
    again = ring.take()
    assert again is not None
    assert again.head == heads[1]
    assert ring.base == 2


def test_indices_go_round(pair: Pair) -> None:
    pair.ring.close()
    queue = pair.queue
    queue.offered = queue.seen = 0xFFFE
    queue.word(queue.available + 2, 0xFFFE)
    queue.word(queue.used + 2, 0xFFFE)
    ring = pair.ring = pair.open(base=0xFFFE)
    for _ in range(5):
        queue.offer([(queue.buffers, 4)], 0)
        chain = ring.take()
        assert chain is not None
        ring.put(chain.head, 0)
        assert ring.publish()
        assert len(list(queue.collect())) == 1
    assert ring.base == 3


def test_an_indirect_table_may_follow_direct_descriptors(pair: Pair) -> None:
    queue, spare = pair.queue, pair.guest.spare
    pair.guest.memory[queue.buffers : queue.buffers + 3] = b"xyz"
    for at, piece in enumerate((1, 2)):
        more = NEXT if at == 0 else 0
        struct.pack_into("<QIHH", pair.guest.memory, spare + 16 * at, GUEST_BASE + queue.buffers + piece, 1, more, 1)
    queue.describe(0, GUEST_BASE + queue.buffers, 1, NEXT, 1)
    queue.describe(1, GUEST_BASE + spare, 32, INDIRECT)
    queue.expose(0)
    chain = pair.ring.take()
    assert chain is not None
    assert [bytes(view) for view in chain.views] == [b"x", b"y", b"z"]


def test_empty_buffers_are_passed_over(pair: Pair) -> None:
    queue = pair.queue
    queue.offer([(queue.buffers, 0), (queue.buffers, 1)], 0)
    chain = pair.ring.take()
    assert chain is not None
    assert [len(view) for view in chain.views] == [1]


def test_a_longest_chain_is_taken(pair: Pair) -> None:
    queue = pair.queue
    queue.offer([(queue.buffers, 1)] * QUEUE_SIZE, 0)
    chain = pair.ring.take()
    assert chain is not None
    assert len(chain.views) == QUEUE_SIZE


def hostile_index(queue: Queue) -> None:
    queue.expose(QUEUE_SIZE)


def hostile_loop(queue: Queue) -> None:
    queue.describe(0, GUEST_BASE, 1, NEXT, 1)
    queue.describe(1, GUEST_BASE, 1, NEXT, 0)
    queue.expose(0)


def hostile_next(queue: Queue) -> None:
    queue.describe(0, GUEST_BASE, 1, NEXT, 0xFFFF)
    queue.expose(0)


def hostile_address(queue: Queue) -> None:
    queue.describe(0, (1 << 64) - 1, 0xFFFFFFFF)
    queue.expose(0)


def hostile_length(queue: Queue) -> None:
    queue.describe(0, GUEST_BASE, 0xFFFFFFFF)
    queue.expose(0)


def hostile_direction(queue: Queue) -> None:
    queue.describe(0, GUEST_BASE, 1, WRITE)
    queue.expose(0)


def hostile_jump(queue: Queue) -> None:
    queue.word(queue.available + 2, QUEUE_SIZE + 1)


def hostile_step_back(queue: Queue) -> None:
    queue.word(queue.available + 2, 0xFFFF)


def indirect(queue: Queue, length: int, flags: int = INDIRECT) -> None:
    queue.describe(0, GUEST_BASE + queue.buffers, length, flags, 1)
    queue.expose(0)


def hostile_table_crooked(queue: Queue) -> None:
    indirect(queue, 17)


def hostile_table_empty(queue: Queue) -> None:
    indirect(queue, 0)


def hostile_table_long(queue: Queue) -> None:
    indirect(queue, 16 * (QUEUE_SIZE + 1))


def hostile_table_and_next(queue: Queue) -> None:
    indirect(queue, 16, INDIRECT | NEXT)


def hostile_table_in_table(queue: Queue) -> None:
    struct.pack_into("<QIHH", queue.memory, queue.buffers, GUEST_BASE + queue.buffers, 16, INDIRECT, 0)
    indirect(queue, 16)


def hostile_table_loop(queue: Queue) -> None:
    struct.pack_into("<QIHH", queue.memory, queue.buffers, GUEST_BASE + queue.buffers, 1, NEXT, 0)
    indirect(queue, 16)


def hostile_table_outside(queue: Queue) -> None:
    queue.describe(0, 5, 16, INDIRECT)
    queue.expose(0)


@pytest.mark.parametrize("hostile", [value for name, value in sorted(globals().items()) if name.startswith("hostile_")])
def test_a_hostile_driver_breaks_its_queue(pair: Pair, hostile: object) -> None:
    assert callable(hostile)
    hostile(pair.queue)
    with pytest.raises(GuestError):
        pair.ring.take()


def test_indirect_tables_must_have_been_negotiated() -> None:
    pair = Pair(indirect=False)
    indirect(pair.queue, 16)
    with pytest.raises(GuestError, match="where none may be"):
        pair.ring.take()
    pair.close()


def test_buffers_for_the_device_must_be_writable() -> None:
    pair = Pair(writable=True)
    pair.queue.offer([(pair.queue.buffers, 1)], 0)
    with pytest.raises(GuestError, match="direction"):
        pair.ring.take()
    pair.close()


@pytest.mark.parametrize("size", [0, 3, 24, 1 << 16])
def test_a_size_that_is_no_power_of_two_is_refused(pair: Pair, size: int) -> None:
    with pytest.raises(GuestError, match="power of two"):
        pair.open(size=size)


def test_a_place_that_is_not_aligned_or_not_there_is_refused(pair: Pair) -> None:
    with pytest.raises(GuestError, match="aligned"):
        pair.open(shift=8)
    with pytest.raises(GuestError, match="not in the guest's memory"):
        pair.open(shift=1 << 40)


def test_kicks_are_asked_for_by_the_flag(pair: Pair) -> None:
    queue, ring = pair.queue, pair.ring
    ring.ignore()
    assert queue.word(queue.used) == 1
    assert not ring.listen()
    assert queue.word(queue.used) == 0
    queue.offer([(queue.buffers, 1)], 0)
    assert ring.listen()


def test_kicks_are_asked_for_by_the_index() -> None:
    pair = Pair(event_idx=True)
    queue, ring = pair.queue, pair.ring
    queue.offer([(queue.buffers, 1)], 0)
    assert ring.take() is not None
    assert not ring.listen()
    assert queue.word(queue.used + 4 + 8 * QUEUE_SIZE) == 1
    pair.close()


def test_calls_are_suppressed_by_the_flag(pair: Pair) -> None:
    queue, ring = pair.queue, pair.ring
    queue.word(queue.available, 1)
    ring.put(queue.offer([(queue.buffers, 1)], 0), 0)
    assert not ring.publish()
    queue.word(queue.available, 0)
    ring.put(queue.offer([(queue.buffers, 1)], 0), 0)
    assert ring.publish()


@pytest.mark.parametrize(
    ("used_event", "put", "called"), [(0, 1, True), (1, 1, False), (1, 2, True), (4, 3, False), (0xFFFF, 3, False)]
)
def test_calls_are_suppressed_by_the_index(used_event: int, put: int, called: bool) -> None:
    """virtio 1.2, 2.7.7.2: the guest is called when the index it named has been passed."""
    pair = Pair(event_idx=True)
    queue, ring = pair.queue, pair.ring
    queue.word(queue.available + 4 + 2 * QUEUE_SIZE, used_event)
    for _ in range(put):
        ring.put(queue.offer([(queue.buffers, 1)], 0), 0)
    assert ring.publish() is called
    pair.close()
