"""`system.coming`: it comes to who waits, and to who was cancelled meanwhile too."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from coworkd.system.coming import Coming


def test_it_comes_to_who_waits_and_to_who_asks_later() -> None:
    async def main() -> None:
        coming: Coming[int] = Coming()
        got: list[int] = []

        async def wait() -> None:
            got.append(await coming.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            coming.come(1)
            coming.come(2)
        assert [*got, await coming.wait()] == [1, 1]

    trio.run(main)


def test_who_is_cancelled_gets_it_all_the_same_and_hears_of_that_later() -> None:
    async def main() -> None:
        coming: Coming[int] = Coming()
        got: list[object] = []

        async def wait(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await coming.wait())
                await trio.lowlevel.checkpoint()
                got.append("went on")

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            coming.come(1)
        assert got == [1]
        assert scope.cancelled_caught

    trio.run(main)


def test_a_second_one_may_not_wait() -> None:
    async def main() -> None:
        coming: Coming[None] = Coming()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(coming.wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await coming.wait()
            coming.come(None)

    trio.run(main)
