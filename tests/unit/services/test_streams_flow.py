"""`services.streams_flow`: offsets, the window, and how the two directions end."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from coworkd.model.errors import InvalidState, OutOfRange, Unavailable
from coworkd.model.stream import StreamEnding
from coworkd.services.streams_flow import Flow
from tests.unit.services.process_house import in_trio, settle
from tests.unit.services.stream_house import Data, StreamLink, encode_data, rig


@in_trio
async def test_frames_have_at_most_the_bytes_of_a_turn_and_follow_each_other() -> None:
    async with rig() as house:
        flow, peer = house.open()
        peer.send(b"abcdef")
        await settle()
        assert house.link.take(limit_bytes=4) == [
            Data(flow.name, 0, b"abcd", False, None),
            Data(flow.name, 4, b"ef", False, None),
        ]


@in_trio
async def test_nothing_leaves_the_kernel_before_the_writer_asks() -> None:
    async with rig() as house:
        flow, peer = house.open()
        peer.send(b"abc")
        await settle()
        assert house.link.woken == 1
        assert flow.offset == 0


@in_trio
async def test_the_writer_is_woken_once_for_each_time_it_found_nothing() -> None:
    async with rig() as house:
        _, peer = house.open()
        await settle()
        assert house.link.woken == 0
        for round_ in (1, 2, 3):
            peer.send(b"x")
            await settle()
            assert house.link.woken == round_
            assert house.link.take()


@in_trio
async def test_a_window_holds_data_back_until_it_was_taken() -> None:
    async with rig() as house:
        flow, peer = house.open(window=4)
        peer.send(b"abcdefgh")
        await settle()
        assert [frame.data for frame in house.link.take()] == [b"abcd"]
        await house.ack(flow, 2)
        assert [frame.data for frame in house.link.take()] == [b"ef"]
        await house.ack(flow, 1)  # an old one: nothing is taken back
        assert house.link.take() == []
        await house.ack(flow, 6)
        assert [frame.data for frame in house.link.take()] == [b"gh"]


@in_trio
@pytest.mark.parametrize("offset", [-1, 3])
async def test_bytes_never_sent_cannot_be_taken(offset: int) -> None:
    async with rig() as house:
        flow, peer = house.open(window=4)
        peer.send(b"ab")
        await settle()
        house.link.take()
        with pytest.raises(OutOfRange):
            await house.ack(flow, offset)


@in_trio
async def test_an_ack_without_a_window_is_fine() -> None:
    async with rig() as house:
        flow, _ = house.open()
        await house.ack(flow, 0)


@in_trio
async def test_the_other_side_ends_first_and_is_still_written_to() -> None:
    async with rig() as house:
        flow, peer = house.open()
        peer.send(b"all")
        peer.shutdown(socket.SHUT_WR)
        await settle()
        assert house.link.take() == [Data(flow.name, 0, b"all", False, None), Data(flow.name, 3, b"", True, None)]
        await settle()
        assert house.link.sources == []
        assert await house.write(flow, 0, b"more") == 4
        assert peer.recv(10) == b"more"
        assert house.endings == []
        await house.close_write(flow, 4)
        assert peer.recv(10) == b""
        await settle()
        assert [ending.error for ending in house.endings] == [None]


@in_trio
async def test_the_host_ends_first_and_still_hears() -> None:
    async with rig() as house:
        flow, peer = house.open()
        await house.write(flow, 0, b"ask")
        await house.close_write(flow)
        await house.close_write(flow)
        assert peer.recv(10) == b"ask"
        assert peer.recv(10) == b""
        peer.send(b"answer")
        peer.close()
        await settle()
        assert [frame.data for frame in house.link.take()] == [b"answer", b""]
        await settle()
        assert [(ending.sent_bytes, ending.received_bytes) for ending in house.endings] == [(3, 6)]
        with pytest.raises(InvalidState, match="closed for writing by the host after 3 bytes"):
            await house.write(flow, 3, b"x")


@in_trio
async def test_close_write_wants_exactly_what_was_taken() -> None:
    async with rig() as house:
        flow, peer = house.open()
        await house.write(flow, 0, b"abc")
        with pytest.raises(OutOfRange) as caught:
            await house.close_write(flow, 5)
        assert caught.value.details["offset"] == 3
        assert await house.write(flow, 3, b"d") == 4
        assert peer.recv(10) == b"abcd"


@in_trio
async def test_a_peer_that_is_gone_is_told_with_the_next_write() -> None:
    async with rig() as house:
        flow, peer = house.open()
        peer.close()
        with pytest.raises(InvalidState, match="by the other side"):
            await house.write(flow, 0, b"x")


@in_trio
async def test_known_bytes_are_acknowledged_and_dropped() -> None:
    async with rig() as house:
        flow, peer = house.open()
        await house.write(flow, 0, b"abcd")
        assert await house.write(flow, 1, b"bc") == 4
        assert await house.write(flow, 2, b"cdef") == 6
        assert peer.recv(10) == b"abcdef"


class Broken:
    """An end that fails as told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.closings: list[bool] = []

    def read_nowait(self, limit_bytes: int, /) -> bytes | None:
        raise self.error

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    def write_nowait(self, data: memoryview, /) -> int:
        raise self.error

    async def wait_writable(self) -> None:
        raise self.error

    def close_write(self) -> None:
        raise self.error

    def close(self, *, abort: bool = False) -> None:
        self.closings.append(abort)


async def broken(error: Exception) -> tuple[Flow, Broken, StreamLink, list[StreamEnding]]:
    end, link, endings = Broken(error), StreamLink(), list[StreamEnding]()
    flow = Flow("s1", end, link, encode=encode_data, window=None)
    flow.on_end(endings.append)
    link.attach(flow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.watch)
        await settle()
        nursery.cancel_scope.cancel()
    return flow, end, link, endings


@in_trio
async def test_a_reset_is_told_as_an_end_with_its_reason() -> None:
    flow, end, link, endings = await broken(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    (frame,) = link.take()
    assert frame.eof
    assert frame.error is not None
    assert "reset" in frame.error
    await settle()
    assert end.closings == [True]
    assert [type(ending.error) for ending in endings] == [Unavailable]
    with pytest.raises(InvalidState, match="lost"):
        await flow.write(0, b"x")
    assert link.sources == []


@in_trio
async def test_a_loss_from_inside_is_told_once_and_frees_the_end() -> None:
    async with rig() as house:
        flow, peer = house.open()
        flow.lose(Unavailable("session work was closed"))
        flow.lose(Unavailable("again"))
        assert house.link.take() == [Data(flow.name, 0, b"", True, "session work was closed")]
        await settle()
        assert peer.recv(10) == b""
        assert len(house.endings) == 1
        await house.close(flow)
        await settle()
        assert len(house.endings) == 1


@in_trio
async def test_a_close_of_an_end_that_cannot_be_shut_down_is_no_error() -> None:
    flow, _, _, _ = await broken(OSError(errno.ENOTCONN, "not connected"))
    flow.close_write(None)


@in_trio
async def test_an_end_that_cannot_be_waited_for_loses_its_stream_alone() -> None:
    end, link, endings = Broken(OSError(errno.EPERM, "no")), StreamLink(), list[StreamEnding]()
    flow = Flow("s1", end, link, encode=encode_data, window=None)
    flow.on_end(endings.append)

    async def refuse() -> None:
        raise PermissionError("epoll takes no such file")

    end.wait_readable = refuse  # type: ignore[method-assign]
    await flow.watch()
    assert len(endings) == 1


@in_trio
async def test_a_source_that_was_detached_for_an_error_is_lost() -> None:
    async with rig() as house:
        flow, peer = house.open()
        house.link.detach(flow)
        assert peer.recv(10) == b""
        with pytest.raises(InvalidState):
            await house.write(flow, 0, b"x")
