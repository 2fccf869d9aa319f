"""The trio stream handle."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from coworkd.client.aio import AsyncClient
from coworkd.client.aio_stream import AsyncStream
from coworkd.model.errors import InvalidState, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault
from tests.unit.client.stream_guest import StreamGuest
from tests.unit.client.test_aio import run


@pytest.fixture
def streams(guest: FakeGuest) -> StreamGuest:
    return StreamGuest(guest)


def test_bytes_go_both_ways_to_their_ends(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        async with await client.forward("work", 80) as stream:
            await stream.send(b"ask")
            await stream.close_write()
            streams.send(0, b"answer")
            streams.send(6, b"", eof=True)
            assert [await stream.receive(4), await stream.receive(), await stream.receive()] == [b"answ", b"er", b""]
            assert streams.got["s1"] == b"ask"
            with pytest.raises(InvalidState):
                await stream.send(b"more")
        await client.call("stream.ack")

    run(streams.guest, body)
    assert streams.guest.called("stream.close") == [{"stream": "s1"}]


def test_nobody_listening_is_the_guests_error(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        with pytest.raises(InvalidState):
            await client.forward("work", 1)

    run(streams.guest, body)


def test_what_was_read_is_acknowledged_at_once(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80, window=8)
        streams.send(0, b"aaaaaaaa")
        assert await stream.receive(4) == b"aaaa"
        await client.call("stream.ack")

    run(streams.guest, body)
    assert streams.guest.called("stream.ack")[0] == {"stream": "s1", "offset": 4}


def test_one_that_is_not_read_holds_up_no_other(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        await client.forward("work", 80, window=8)
        other = await client.forward("work", 80, window=8)
        streams.send(0, b"12345678", "s1")
        streams.send(0, b"through", "s2")
        assert await other.receive() == b"through"

    run(streams.guest, body)


def test_send_goes_on_while_little_is_taken(streams: StreamGuest) -> None:
    data = bytes(range(256)) * 2000
    streams.room = 100_000

    async def body(client: AsyncClient) -> None:
        await (await client.forward("work", 80)).send(data)

    run(streams.guest, body)
    assert streams.got["s1"] == data


def test_a_receive_that_is_cancelled_loses_nothing(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80)
        with trio.move_on_after(0.01):
            await stream.receive()
        streams.send(0, b"kept")
        assert await stream.receive() == b"kept"

    run(streams.guest, body)


def test_a_send_that_is_cancelled_leaves_the_link_whole(streams: StreamGuest) -> None:
    streams.room = 0

    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80)
        with trio.move_on_after(0.05) as scope:
            await stream.send(bytes(1 << 20))
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        await client.call("stream.ack")

    run(streams.guest, body)
    assert streams.guest.called("stream.close") == [{"stream": "s1"}]


def test_a_stream_nobody_waited_for_is_closed_when_it_comes(streams: StreamGuest) -> None:
    late: list[Any] = []
    streams.guest.answers["forward.open"] = lambda params: late.append(params)

    async def body(client: AsyncClient) -> None:
        with trio.move_on_after(0.05):
            await client.forward("work", 80)
        streams.guest.send(1, 1, None, {"stream": "s9"})
        await client.call("stream.ack")
        await client.call("stream.ack")

    run(streams.guest, body)
    assert late
    assert streams.guest.called("stream.close") == [{"stream": "s9"}]


def test_a_lost_link_raises_and_close_does_not(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80)
        streams.guest.hang_up()
        with pytest.raises(Unavailable):
            await stream.receive()
        await stream.aclose()
        await stream.aclose()

    run(streams.guest, body)


@pytest.mark.parametrize("way", ["reading", "waiting"])
def test_a_close_wakes_a_task_that_receives(streams: StreamGuest, way: str) -> None:
    """Also where the guest says nothing any more; whether that task reads the link, or another does."""
    streams.guest.answers["stream.close"] = streams.guest.answers["slow"] = lambda _: None

    async def receive(stream: AsyncStream) -> None:
        with pytest.raises(InvalidState, match="closed here"):
            await stream.receive()

    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80)
        async with trio.open_nursery() as slow:
            if way == "waiting":
                slow.start_soon(client.call, "slow")
                await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive, stream)
                    await trio.testing.wait_all_tasks_blocked()
                    await stream.aclose()
            slow.cancel_scope.cancel()

    run(streams.guest, body)


def test_too_many_calls_at_once_are_tried_again(streams: StreamGuest) -> None:
    write, ack = streams.guest.answers["stream.write"], streams.guest.answers["stream.ack"]

    def refuse(name: str, then: Any) -> Any:
        def answer(_: dict[str, Any]) -> Any:
            streams.guest.answers[name] = then
            raise Fault("RESOURCE_EXHAUSTED", "256 calls of this link are running", limit=256)

        return answer

    streams.guest.answers["stream.write"] = refuse("stream.write", write)
    streams.guest.answers["stream.ack"] = refuse("stream.ack", ack)

    async def body(client: AsyncClient) -> None:
        stream = await client.forward("work", 80, window=2)
        await stream.send(b"ab")
        streams.send(0, b"xy")
        assert await stream.receive() == b"xy"
        await client.call("info")
        await client.call("info")

    streams.guest.answers["info"] = lambda _: {}
    run(streams.guest, body)
    assert streams.got["s1"] == b"ab"
    assert streams.guest.called("stream.ack") == [{"stream": "s1", "offset": 2}] * 2


def test_the_end_of_a_link_is_waited_for(streams: StreamGuest) -> None:
    async def body(client: AsyncClient) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, streams.guest.hang_up)
            assert isinstance(await client.wait_broken(), Unavailable)

    run(streams.guest, body)
