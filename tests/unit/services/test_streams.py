"""`services.streams`: whose a stream is, how many there are, and what an end leaves behind."""

from __future__ import annotations

import socket

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import InvalidParams, InvalidState, LimitExceeded, NotFound, OutOfRange, Unavailable
from coworkd.services.streams import PATIENCE_S, Streams, check_window
from coworkd.services.streams_socket import SocketEnd
from tests.unit.services.process_house import in_trio, jump, open_fds, settle
from tests.unit.services.stream_house import Data, StreamLink, encode_data, fill, rig

BIG = bytes(range(256)) * 8192


@in_trio
async def test_bytes_go_both_ways_and_a_close_tells_how_many() -> None:
    async with rig() as house:
        flow, peer = house.open()
        peer.send(b"hello")
        await settle()
        assert house.link.take() == [Data(flow.name, 0, b"hello", False, None)]
        assert await house.write(flow, 0, b"world!") == 6
        assert peer.recv(100) == b"world!"
        await house.close(flow)
        await settle()
        (ending,) = house.endings
        assert (ending.sent_bytes, ending.received_bytes, ending.error) == (6, 5, None)
        assert peer.recv(100) == b""
        assert house.link.sources == []


@in_trio
async def test_a_stream_of_another_link_is_not_there() -> None:
    async with rig() as house:
        flow, _ = house.open()
        other = StreamLink("other")
        house.open(other)
        for verb in (
            house.streams.write(calls.StreamWrite(stream=flow.name, offset=0, data=b"x"), other),
            house.streams.close_write(calls.StreamCloseWrite(stream=flow.name), other),
            house.streams.ack(calls.StreamAck(stream=flow.name, offset=0), other),
            house.streams.close(calls.StreamClose(stream=flow.name), other),
            house.streams.write(calls.StreamWrite(stream="s" * 200, offset=0, data=b"x"), StreamLink("new")),
        ):
            with pytest.raises(NotFound, match="this link has no stream"):
                await verb
        assert await house.write(flow, 0, b"x") == 1
        other.close()


@in_trio
async def test_names_are_not_given_twice() -> None:
    async with rig() as house:
        first, _ = house.open()
        await house.close(first)
        second, _ = house.open()
        assert first.name != second.name


@in_trio
async def test_300_streams_are_too_many_and_a_closed_one_makes_room() -> None:
    async with rig() as house:
        flows = [house.open()[0] for _ in range(256)]
        for _ in range(44):
            with pytest.raises(LimitExceeded, match=r"stream\.close"):
                house.streams.reserve(house.link)
        other = StreamLink("other")
        house.open(other)
        await house.close(flows[0])
        house.open()
        assert house.streams.count == 257
        other.close()


@in_trio
async def test_places_taken_at_once_count_and_come_back_unopened() -> None:
    async with rig(limit=2) as house:
        with house.streams.reserve(house.link), house.streams.reserve(house.link), pytest.raises(LimitExceeded):
            house.streams.reserve(house.link)
        house.open()
        house.open()
        with pytest.raises(LimitExceeded):
            house.open()


@in_trio
async def test_a_stream_that_ended_keeps_its_name_until_the_host_closes_it() -> None:
    async with rig(limit=1) as house:
        flow, peer = house.open()
        peer.close()
        await settle()
        assert house.link.take() == [Data(flow.name, 0, b"", True, None)]
        with pytest.raises(InvalidState):
            await house.write(flow, 0, b"x")
        with pytest.raises(LimitExceeded):
            house.streams.reserve(house.link)
        await house.close(flow)
        house.streams.reserve(house.link)
        with pytest.raises(NotFound):
            await house.close(flow)


@in_trio
async def test_a_write_waits_for_room_and_then_says_what_was_taken() -> None:
    async with rig() as house:
        flow, peer = house.open()
        taken: list[int] = []

        async def write() -> None:
            taken.append(await house.write(flow, 0, BIG))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await settle()
            assert not taken
            jump(PATIENCE_S)
        assert 0 < taken[0] < len(BIG)
        got = b""
        while len(got) < taken[0]:
            got += peer.recv(65536)
        assert got == BIG[: taken[0]]
        assert await house.write(flow, taken[0], BIG[taken[0] : taken[0] + 10]) == taken[0] + 10


@in_trio
async def test_more_stuck_writes_than_may_wait_are_answered_at_once() -> None:
    async with rig(patient_writes=1) as house:
        stuck, _ = house.open()
        other, _ = house.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.write, stuck, 0, BIG)
            await settle()
            assert 0 < await house.write(other, 0, BIG) < len(BIG)  # the clock stands: it did not wait
            jump(PATIENCE_S)


@in_trio
async def test_a_peer_that_never_reads_slows_no_other_stream() -> None:
    async with rig() as house:
        stuck, _ = house.open()
        other, peer = house.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.write, stuck, 0, BIG)
            await settle()
            assert await house.write(other, 0, b"through") == 7
            peer.send(b"back")
            await settle()
            assert [frame.data for frame in house.link.take()] == [b"back"]
            jump(PATIENCE_S)


@in_trio
async def test_writes_of_one_stream_queue_up() -> None:
    async with rig() as house:
        flow, peer = house.open()
        first = BIG
        answers: list[int] = []

        async def write(offset: int, data: bytes) -> None:
            answers.append(await house.write(flow, offset, data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0, first)
            await settle()
            nursery.start_soon(write, len(first), b"behind")
            got = b""
            while len(got) < len(first) + 6:
                await settle()
                got += peer.recv(1 << 20)
        assert got == first + b"behind"
        assert answers == [len(first), len(first) + 6]


@in_trio
@pytest.mark.parametrize("offset", [-1, 5])
async def test_a_wrong_offset_is_refused_and_changes_nothing(offset: int) -> None:
    async with rig() as house:
        flow, peer = house.open()
        await house.write(flow, 0, b"abc")
        with pytest.raises((OutOfRange, InvalidParams)):
            await house.write(flow, offset, b"xyz")
        assert await house.write(flow, 3, b"d") == 4
        assert peer.recv(100) == b"abcd"


@in_trio
async def test_the_end_of_a_link_resets_its_streams_and_no_others() -> None:
    before = open_fds()
    async with rig() as house:
        other = StreamLink("other")
        kept, _ = house.open(other)
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        with house.streams.reserve(house.link) as place:
            place.open(SocketEnd(ours), window=None, ended=house.ended)
        house.link.close()
        await settle()
        with pytest.raises(ConnectionResetError):
            peer.recv(10)
        assert [ending.error is not None for ending in house.endings] == [True]
        assert await house.write(kept, 0, b"x", other) == 1
        assert house.streams.count == 1
        other.close()
        peer.close()
        listener.close()
    assert open_fds() == before


@in_trio
async def test_the_end_of_a_link_frees_a_write_that_waits() -> None:
    async with rig() as house:
        flow, _ = house.open()
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                with pytest.raises(InvalidState):
                    await house.write(flow, 0, BIG)

            nursery.start_soon(write)
            await settle()
            house.link.close()


@in_trio
async def test_a_link_that_ended_while_the_stream_was_made_leaves_nothing() -> None:
    before = open_fds()
    async with rig() as house:
        ours, peer = socket.socketpair()
        with house.streams.reserve(house.link) as place:
            house.link.close()
            with pytest.raises(Unavailable):
                place.open(SocketEnd(ours), window=None, ended=house.ended)
        assert house.streams.count == 0
        peer.close()
    assert open_fds() == before


@in_trio
async def test_before_and_after_serving_nothing_is_opened() -> None:
    before = open_fds()
    streams = Streams(encode=encode_data)
    ours, peer = socket.socketpair()
    with pytest.raises(Unavailable), streams.reserve(StreamLink()) as place:
        place.open(SocketEnd(ours), window=None, ended=lambda _: trio.sleep(0))
    peer.close()
    assert open_fds() == before


@in_trio
async def test_every_end_is_told_when_all_is_cancelled_at_once() -> None:
    async with rig() as house:
        house.open()
        house.link.close()
    assert len(house.endings) == 1


@in_trio
async def test_a_reader_that_is_slow_costs_the_sender_not_us() -> None:
    async with rig() as house:
        _, peer = house.open()
        sent = fill(peer)
        await settle()
        sent += fill(peer)
        assert house.link.sources[0].next_frame(65536) is not None
        got = 65536 + sum(len(frame.data) for frame in house.link.take())
        assert got == sent


@pytest.mark.parametrize("window", [0, -1, 1 << 40])
def test_a_window_that_cannot_be_meant_is_refused(window: int) -> None:
    with pytest.raises(InvalidParams):
        check_window(window)


def test_no_window_and_a_small_one_are_fine() -> None:
    check_window(None)
    check_window(1)
