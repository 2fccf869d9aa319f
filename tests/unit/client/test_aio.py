"""The trio client against a guest that is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.client.aio import AsyncClient, connect
from coworkd.model.errors import DeadlineExceeded, NotFound, Unavailable
from tests.unit.client.conftest import FakeGuest, Fault

Body = Callable[[AsyncClient], Awaitable[None]]


@asynccontextmanager
async def linked(guest: FakeGuest) -> AsyncIterator[AsyncClient]:
    guest.begin()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(guest.host.dup()))
    async with AsyncClient(stream) as client:
        await client.greet("test")
        yield client


def run(guest: FakeGuest, body: Body) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with linked(guest) as client:
                await body(client)

    trio.run(main)


def test_verbs_and_raw_calls_give_answers(guest: FakeGuest) -> None:
    guest.answers["ping"] = lambda _: {"time": 1.0, "monotonic": 2.0}

    async def body(client: AsyncClient) -> None:
        assert client.hello.version == "9.9"
        assert (await client.ping()).monotonic == 2.0
        assert await client.call("ping") == {"time": 1.0, "monotonic": 2.0}

    run(guest, body)


def test_errors_of_the_guest_are_raised_as_their_class(guest: FakeGuest) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("NOT_FOUND", "no session")

    guest.answers["session.get"] = refuse

    async def body(client: AsyncClient) -> None:
        with pytest.raises(NotFound, match="no session"):
            await client.session_get(session="x")

    run(guest, body)


def test_tasks_share_one_client(guest: FakeGuest) -> None:
    guest.answers["echo"] = lambda params: params
    got: list[int] = []

    async def body(client: AsyncClient) -> None:
        async def ask(number: int) -> None:
            got.append((await client.call("echo", {"n": number}))["n"])

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)

    run(guest, body)
    assert sorted(got) == list(range(50))


def test_a_cancelled_reader_hands_over_to_another_task(guest: FakeGuest) -> None:
    reader = trio.CancelScope()

    async def body(client: AsyncClient) -> None:
        async def first() -> None:
            with reader:
                await client.call("slow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(second, client)
            await trio.testing.wait_all_tasks_blocked(0.01)
            reader.cancel()

    async def second(client: AsyncClient) -> None:
        assert await client.call("later") == {"late": True}

    guest.answers["slow"] = lambda _: None
    guest.answers["later"] = lambda _: {"late": True}
    run(guest, body)


def test_a_deadline_that_passes_leaves_the_link_usable(guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: None
    guest.answers["ping"] = lambda _: {"time": 1.0, "monotonic": 2.0}

    async def body(client: AsyncClient) -> None:
        with pytest.raises(DeadlineExceeded, match="slow"):
            await client.call("slow", timeout_s=0.02)
        assert (await client.ping()).time == 1.0

    run(guest, body)


def test_a_lost_link_raises_unavailable_now_and_later(guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: guest.hang_up()

    async def body(client: AsyncClient) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="connect again"):
                await client.call("slow")

    run(guest, body)


def test_events_are_iterated_and_a_parked_feed_goes_on(guest: FakeGuest) -> None:
    guest.answers["events.subscribe"] = lambda _: {"next": 1, "missed": 0}
    guest.answers["events.unsubscribe"] = lambda _: {}

    async def body(client: AsyncClient) -> None:
        subscription = await client.events(after=0)
        subscription._feed.parked = True
        guest.after["events.subscribe"] = lambda _: guest.notify("a.b", seq=1, at=1.0)
        async for event in subscription:
            assert event.seq == 1
            break
        await subscription.aclose()

    run(guest, body)
    assert guest.called("events.subscribe") == [{"after": 0}, {"after": 0}]


def test_connect_tells_what_to_look_at_where_nothing_listens(tmp_path: Any) -> None:
    with pytest.raises(Unavailable, match="is coworkd running"):
        trio.run(connect, f"unix://{tmp_path}/none.sock")
