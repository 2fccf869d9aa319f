"""One link between several tasks, with a guest that is not ours at its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.client.aio_link import AsyncLink
from coworkd.model.errors import DeadlineExceeded, Unauthenticated, Unavailable
from tests.unit.client.conftest import HELLO, FakeGuest

Body = Callable[[AsyncLink], Awaitable[None]]


async def greeted(guest: FakeGuest) -> AsyncLink:
    guest.begin()
    link = AsyncLink(trio.SocketStream(trio.socket.from_stdlib_socket(guest.host.dup())))
    await link.greet("test", None, None)
    return link


@asynccontextmanager
async def linked(guest: FakeGuest) -> AsyncIterator[AsyncLink]:
    link = await greeted(guest)
    try:
        yield link
    finally:
        await link.aclose()


def run(guest: FakeGuest, body: Body) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with linked(guest) as link:
                await body(link)

    trio.run(main)


async def ask(
    link: AsyncLink, method: str, params: dict[str, Any] | None = None, timeout_s: float | None = None
) -> Any:
    pending, frame = link.core.request(method, params or {})
    return await link.finish(pending, frame, timeout_s)


def test_tasks_share_one_link(guest: FakeGuest) -> None:
    guest.answers["echo"] = lambda params: params
    got: list[int] = []

    async def body(link: AsyncLink) -> None:
        async def work(number: int) -> None:
            got.append((await ask(link, "echo", {"n": number}))["n"])

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(work, number)

    run(guest, body)
    assert sorted(got) == list(range(50))


def test_a_cancelled_reader_hands_over_to_another_task(guest: FakeGuest) -> None:
    reader = trio.CancelScope()

    async def body(link: AsyncLink) -> None:
        async def first() -> None:
            with reader:
                await ask(link, "slow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(second, link)
            await trio.testing.wait_all_tasks_blocked(0.01)
            reader.cancel()

    async def second(link: AsyncLink) -> None:
        assert await ask(link, "later") == {"late": True}

    guest.answers["slow"] = lambda _: None
    guest.answers["later"] = lambda _: {"late": True}
    run(guest, body)


def test_a_deadline_that_passes_leaves_the_link_usable(guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: None
    guest.answers["echo"] = lambda params: params

    async def body(link: AsyncLink) -> None:
        with pytest.raises(DeadlineExceeded, match="slow"):
            await ask(link, "slow", timeout_s=0.02)
        assert await ask(link, "echo", {"n": 1}) == {"n": 1}

    run(guest, body)


def test_a_lost_link_raises_unavailable_now_and_later(guest: FakeGuest) -> None:
    guest.answers["slow"] = lambda _: guest.hang_up()

    async def body(link: AsyncLink) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="connect again"):
                await ask(link, "slow")

    run(guest, body)


def test_one_that_is_kept_goes_on_over_the_next(guest: FakeGuest, next_guest: FakeGuest) -> None:
    guest.answers["ping"] = lambda _: guest.hang_up()
    next_guest.answers["hello"] = lambda _: {**HELLO, "version": "9.10"}
    next_guest.answers["ping"] = lambda _: {"time": 1.0, "monotonic": 2.0}

    async def body(link: AsyncLink) -> None:
        link.keep(lambda: greeted(next_guest), 60)
        assert await ask(link, "ping") == {"time": 1.0, "monotonic": 2.0}
        assert (link.core.link, link.hello.version) == (1, "9.10")

    run(guest, body)


def test_one_that_cannot_be_made_again_is_broken_with_what_was_said(guest: FakeGuest) -> None:
    async def refuse() -> AsyncLink:
        raise Unauthenticated("the token is wrong")

    async def body(link: AsyncLink) -> None:
        link.keep(refuse, 60)
        guest.hang_up()
        for _ in range(2):
            with pytest.raises(Unauthenticated, match="token"):
                await ask(link, "ping")

    run(guest, body)
