from __future__ import annotations

import trio
import trio.testing

from coworkd.client.aio_waiting import Waiting


class Room:
    """Tasks that wait, each for what is named, and who of them went on."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.waiting = Waiting()
        self.went_on: list[str] = []
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def enter(self, *names: str, thing: str | None = None) -> None:
        for name in names:
            self._nursery.start_soon(self._wait, name, thing or name)
            await trio.testing.wait_all_tasks_blocked()

    async def gone_on(self) -> list[str]:
        await trio.testing.wait_all_tasks_blocked()
        went_on, self.went_on = self.went_on, []
        return sorted(went_on)

    async def _wait(self, name: str, thing: str) -> None:
        with trio.CancelScope() as self.scopes[name]:
            await self.waiting.wait(thing)
            self.went_on.append(name)


def test_those_are_woken_for_whom_something_came() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            await room.enter("a", "b", "c")
            room.waiting.wake({"x"})
            assert await room.gone_on() == []
            room.waiting.wake({"a", "c"})
            assert await room.gone_on() == ["a", "c"]
            await room.enter("d")
            room.waiting.wake_all()
            assert await room.gone_on() == ["b", "d"]

    trio.run(main)


def test_all_who_wait_for_one_thing_are_woken_for_it() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            await room.enter("a", "b", "c", thing="one")
            room.scopes["b"].cancel()
            await trio.testing.wait_all_tasks_blocked()
            room.waiting.wake({"one"})
            assert await room.gone_on() == ["a", "c"]

    trio.run(main)


def test_one_is_asked_to_read_and_no_second_one_until_it_runs() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            await room.enter("a", "b", "c")
            room.waiting.hand_on()
            room.waiting.hand_on()
            assert await room.gone_on() == ["a"]
            room.waiting.hand_on()
            assert await room.gone_on() == ["b"]
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_one_that_is_cancelled_when_it_was_asked_is_asked_no_more() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            await room.enter("a", "b")
            room.scopes["a"].cancel()
            room.waiting.hand_on()
            await trio.testing.wait_all_tasks_blocked()
            room.waiting.hand_on()
            assert "b" in await room.gone_on()

    trio.run(main)


def test_nobody_is_woken_where_nobody_waits() -> None:
    async def main() -> None:
        waiting = Waiting()
        waiting.hand_on()
        waiting.wake({"a"})
        waiting.wake_all()
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            room.waiting = waiting
            await room.enter("a")
            assert await room.gone_on() == []
            waiting.hand_on()
            assert await room.gone_on() == ["a"]

    trio.run(main)
