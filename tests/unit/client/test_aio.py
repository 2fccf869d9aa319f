"""The trio client against a guest that is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from coworkd.client.aio import AsyncClient, connect
from coworkd.model.errors import NotFound, Unavailable
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
