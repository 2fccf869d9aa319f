from __future__ import annotations

import trio
import trio.testing

from coworkd.client.aio_waiting import Waiting


class Room:
    """Tasks that wait, and who of them went on."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.waiting = Waiting()
        self.ready: set[str] = set()
        self.went_on: list[str] = []
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def enter(self, *names: str) -> None:
        for name in names:
            self._nursery.start_soon(self._wait, name)
            await trio.testing.wait_all_tasks_blocked()

    async def gone_on(self) -> list[str]:
        await trio.testing.wait_all_tasks_blocked()
        went_on, self.went_on = self.went_on, []
        return sorted(went_on)

    async def _wait(self, name: str) -> None:
        with trio.CancelScope() as self.scopes[name]:
            await self.waiting.wait(lambda: name in self.ready)
            self.went_on.append(name)


def test_those_are_woken_who_have_what_they_wait_for() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            await room.enter("a", "b", "c")
            room.waiting.wake_ready()
            assert await room.gone_on() == []
            room.ready = {"a", "c"}
            room.waiting.wake_ready()
            assert await room.gone_on() == ["a", "c"]
            await room.enter("d")
            room.waiting.wake_all()
            assert await room.gone_on() == ["b", "d"]

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
        waiting.wake_ready()
        waiting.wake_all()
        async with trio.open_nursery() as nursery:
            room = Room(nursery)
            room.waiting = waiting
            await room.enter("a")
            assert await room.gone_on() == []
            waiting.hand_on()
            assert await room.gone_on() == ["a"]

    trio.run(main)
