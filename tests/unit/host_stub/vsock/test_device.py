from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

import pytest

from host_stub.vsock import messages
from host_stub.vsock.device import BACKEND_REQ, CONFIG, FEATURES, PROTOCOL, REPLY_ACK, Device
from host_stub.vsock.messages import Ask, FrontEndError, Message
from tests.unit.host_stub.vsock.driver import GUEST_BASE, USER_BASE, Guest, compose_addresses, compose_memory


class Room:
    """A device, a guest's memory, and what the device told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.released: list[int] = []
        self.device = Device(3, self)
        self.guest = Guest()

    def changed(self, index: int) -> None:
        self.told.append(index)

    def releasing(self, fd: int) -> None:
        os.fstat(fd)
        self.released.append(fd)

    def ask(
        self, ask: int, payload: bytes = b"", fds: Sequence[int] = (), *, needs_reply: bool = False
    ) -> bytes | None:
        message = Message(ask, payload, needs_reply=needs_reply, fds=[os.dup(fd) for fd in fds])
        try:
            return self.device.handle(message)
        finally:
            assert not message.fds

    def give_memory(self) -> None:
        self.ask(
            Ask.SET_MEM_TABLE,
            compose_memory([(GUEST_BASE, len(self.guest.memory), USER_BASE, 0)]),
            [self.guest.memory_fd],
        )

    def set_up(self, index: int, *, base: int = 0) -> None:
        queue = self.guest.queues[index]
        self.ask(Ask.SET_VRING_NUM, struct.pack("=II", index, queue.size))
        self.ask(Ask.SET_VRING_BASE, struct.pack("=II", index, base))
        self.ask(Ask.SET_VRING_ADDR, compose_addresses(index, queue))
        self.ask(Ask.SET_VRING_CALL, messages.compose_u64(index), [queue.call_fd])
        self.ask(Ask.SET_VRING_KICK, messages.compose_u64(index), [queue.kick_fd])

    @property
    def running(self) -> list[bool]:
        return [vring.ring is not None for vring in self.device.vrings]


@pytest.fixture
def room() -> Iterator[Room]:
    before = set(os.listdir("/proc/self/fd"))
    made = Room()
    yield made
    made.device.close()
    made.guest.close()
    assert set(os.listdir("/proc/self/fd")) == before


def number(reply: bytes | None) -> int:
    assert reply is not None
    return messages.parse_u64(reply[messages.HEADER.size :])


def test_features_are_told(room: Room) -> None:
    assert number(room.ask(Ask.GET_FEATURES)) == FEATURES
    assert number(room.ask(Ask.GET_PROTOCOL_FEATURES)) == PROTOCOL == REPLY_ACK | BACKEND_REQ | CONFIG
    assert number(room.ask(Ask.GET_QUEUE_NUM)) == 3


def test_a_feature_that_was_not_offered_is_a_breach(room: Room) -> None:
    with pytest.raises(FrontEndError, match="not offered"):
        room.ask(Ask.SET_FEATURES, messages.compose_u64(1 << 24))
    with pytest.raises(FrontEndError, match="not offered"):
        room.ask(Ask.SET_PROTOCOL_FEATURES, messages.compose_u64(1))


@pytest.mark.parametrize("ask", [0, 6, 7, 19, 20, 25, 31, 37, 999])
def test_what_was_not_offered_is_a_breach(room: Room, ask: int) -> None:
    with pytest.raises(FrontEndError, match="not offered"):
        room.ask(ask, bytes(8))


def test_acknowledgements_are_given_when_asked_for_and_negotiated(room: Room) -> None:
    assert room.ask(Ask.SET_OWNER, needs_reply=True) is None
    room.ask(Ask.SET_PROTOCOL_FEATURES, messages.compose_u64(REPLY_ACK))
    assert number(room.ask(Ask.SET_OWNER, needs_reply=True)) == 0
    assert room.ask(Ask.SET_OWNER) is None
    assert number(room.device.acknowledge(Message(Ask.SET_OWNER, b"", needs_reply=True), 1)) == 1


@pytest.mark.parametrize(("offset", "size", "data"), [(0, 8, b"\3" + bytes(7)), (0, 4, b"\3\0\0\0"), (7, 3, bytes(3))])
def test_configuration_is_the_cid(room: Room, offset: int, size: int, data: bytes) -> None:
    reply = room.ask(Ask.GET_CONFIG, struct.pack("=III", offset, size, 0) + bytes(size))
    assert reply == messages.compose_reply(Ask.GET_CONFIG, messages.compose_config(offset, data))


def test_configuration_beyond_its_end_is_answered_with_nothing(room: Room) -> None:
    reply = room.ask(Ask.GET_CONFIG, struct.pack("=III", 250, 8, 0) + bytes(8))
    assert reply == messages.compose_reply(Ask.GET_CONFIG, b"")


def test_a_ring_runs_once_all_is_there(room: Room) -> None:
    room.set_up(0)
    assert not any(room.running)
    room.give_memory()
    assert room.running == [True, False, False]
    assert set(room.told) == {0, 1, 2}


def test_a_ring_waits_to_be_enabled_where_that_was_negotiated(room: Room) -> None:
    room.ask(Ask.SET_FEATURES, messages.compose_u64(FEATURES))
    room.give_memory()
    room.set_up(1)
    assert not any(room.running)
    room.ask(Ask.SET_VRING_ENABLE, struct.pack("=II", 1, 1))
    assert room.running == [False, True, False]
    room.ask(Ask.SET_VRING_ENABLE, struct.pack("=II", 1, 0))
    assert not any(room.running)


def test_a_stopped_ring_says_where_it_was(room: Room) -> None:
    room.give_memory()
    room.set_up(1, base=5)
    queue = room.guest.tx
    queue.offered = 5
    queue.offer([(queue.buffers, 1)], 0)
    ring = room.device.vrings[1].ring
    assert ring is not None
    assert ring.take() is not None
    reply = room.ask(Ask.GET_VRING_BASE, struct.pack("=II", 1, 0))
    assert reply is not None
    assert reply[messages.HEADER.size :] == struct.pack("=II", 1, 6)
    assert not any(room.running)
    assert len(room.released) == 1


def test_a_new_memory_table_keeps_rings_where_they_were(room: Room) -> None:
    room.give_memory()
    room.set_up(1, base=0)
    queue = room.guest.tx
    queue.offer([(queue.buffers, 1)], 0)
    before = room.device.vrings[1].ring
    assert before is not None
    assert before.take() is not None
    room.give_memory()
    after = room.device.vrings[1].ring
    assert after is not None
    assert after is not before
    assert after.base == 1
    assert not room.device.vrings[1].moved


def test_a_base_elsewhere_is_a_move(room: Room) -> None:
    room.set_up(1, base=9)
    assert room.device.vrings[1].moved


def test_a_queue_outside_the_memory_is_the_guests_fault(room: Room) -> None:
    room.give_memory()
    room.set_up(1)
    room.ask(Ask.SET_VRING_ADDR, struct.pack("=IIQQQQ", 1, 0, 16, 16, 16, 0))
    assert "not in the guest's memory" in room.device.vrings[1].broken
    room.ask(Ask.SET_VRING_ADDR, compose_addresses(1, room.guest.tx))
    assert room.running == [False, True, False]


@pytest.mark.parametrize("ask", [Ask.SET_VRING_KICK, Ask.SET_VRING_CALL])
def test_a_ring_to_be_polled_is_refused(room: Room, ask: Ask) -> None:
    for payload, fds in ((1 << 8, []), (0, []), (0, [0, 0])):
        with pytest.raises(FrontEndError, match="polled"):
            room.ask(ask, messages.compose_u64(payload), fds)


def test_a_ring_needs_nobody_to_hear_its_errors(room: Room) -> None:
    room.ask(Ask.SET_VRING_ERR, messages.compose_u64(0), [room.guest.rx.error_fd])
    room.ask(Ask.SET_VRING_ERR, messages.compose_u64(1 << 8))
    assert room.device.vrings[0].error_fd == -1


@pytest.mark.parametrize("ask", [Ask.SET_VRING_NUM, Ask.SET_VRING_BASE, Ask.GET_VRING_BASE, Ask.SET_VRING_ENABLE])
def test_a_fourth_ring_is_a_breach(room: Room, ask: Ask) -> None:
    with pytest.raises(FrontEndError, match="a vsock has 3"):
        room.ask(ask, struct.pack("=II", 3, 0))


def test_memory_whose_descriptors_are_too_few_is_a_breach(room: Room) -> None:
    rows = [(GUEST_BASE, 4096, USER_BASE, 0), (0, 4096, 0, 0)]
    with pytest.raises(FrontEndError, match="2 regions"):
        room.ask(Ask.SET_MEM_TABLE, compose_memory(rows), [room.guest.memory_fd])


def test_a_way_back_needs_its_descriptor(room: Room) -> None:
    with pytest.raises(FrontEndError, match="way back"):
        room.ask(Ask.SET_BACKEND_REQ_FD)
    room.ask(Ask.SET_BACKEND_REQ_FD, b"", [0])
    room.ask(Ask.SET_BACKEND_REQ_FD, b"", [0])


def test_an_interrupt_nobody_takes_does_not_stop_the_device(room: Room) -> None:
    room.give_memory()
    room.set_up(0)
    os.eventfd_write(room.guest.rx.call_fd, (1 << 64) - 2)
    room.device.vrings[0].call()
    assert room.guest.rx.called() == (1 << 64) - 2
