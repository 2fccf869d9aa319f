from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from coworkd.model import files as words
from coworkd.model.errors import InternalError, LimitExceeded, MountFailed, NotFound, Unavailable
from coworkd.services.files_workers import DEADLINE_S, IDLE_LIMIT, IDLE_S, LIMIT, FileWorkers, WorkerLost, expect
from tests.unit.services.files_house import FakeWorkers
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

LOOK = words.LookAt(id=0, path=b"/")
MAKE = words.MakeDirectory(id=0, path=b"/none/at/all", mode=0o755, parents=False)


class House:
    def __init__(self) -> None:
        self.launcher = FakeWorkers()
        self.workers = FileWorkers(self.launcher)


@asynccontextmanager
async def served() -> AsyncIterator[House]:
    before = open_fds()
    house = House()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.workers.serve)
        yield house
        nursery.cancel_scope.cancel()
    house.launcher.close()
    assert house.workers.count == 0
    assert open_fds() == before


@in_trio
async def test_one_worker_serves_all_calls_of_a_session() -> None:
    async with served() as house:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(house.workers.ask, "work", LOOK)
        await house.workers.ask("other", LOOK)
        assert house.launcher.started == ["work", "other"]


@in_trio
async def test_one_that_is_idle_for_long_ends_and_one_that_is_used_does_not() -> None:
    async with served() as house:
        async with house.workers.using("busy"):
            await house.workers.ask("idle", LOOK)
            for _ in range(int(IDLE_S / 5) - 1):
                jump(5.0)
                await settle()
            assert house.workers.count == 2
            for _ in range(3):
                jump(5.0)
                await settle()
            assert house.workers.count == 1
            assert house.launcher.killed == [2]
        await house.workers.ask("idle", LOOK)
        assert house.launcher.started == ["busy", "idle", "idle"]


@in_trio
async def test_of_too_many_idle_ones_the_longest_idle_ends() -> None:
    async with served() as house:
        for number in range(IDLE_LIMIT + 2):
            await house.workers.ask(f"s{number}", LOOK)
            jump(0.01)
        await settle()
        assert house.workers.count == IDLE_LIMIT
        assert house.launcher.killed == [1, 2]


@in_trio
async def test_there_are_never_more_than_the_limit() -> None:
    async with served() as house:
        async with trio.open_nursery() as nursery:
            for number in range(LIMIT):
                worker = await house.workers._find(f"s{number}")
                house.workers.hold(worker)
            with pytest.raises(LimitExceeded):
                await house.workers.ask("one-more", LOOK)
            house.workers.release(worker)
            await house.workers.ask("one-more", LOOK)
            nursery.cancel_scope.cancel()
        assert house.workers.count == LIMIT


@in_trio
async def test_one_that_does_not_answer_is_ended_and_others_are_not_delayed() -> None:
    async with served() as house:
        house.launcher.manner = "hangs"
        told: list[str] = []

        async def ask() -> None:
            with pytest.raises(Unavailable, match="did not answer within 10 s") as caught:
                await house.workers.ask("hung", MAKE)
            told.append(caught.value.message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            house.launcher.manner = "works"
            await house.workers.ask("other", LOOK)
            jump(DEADLINE_S)
        assert len(told) == 1
        await settle()
        assert house.launcher.killed == [1]
        assert isinstance(await house.workers.ask("hung", LOOK), words.LookedAt)


@in_trio
async def test_what_changes_nothing_is_asked_again_where_the_worker_died() -> None:
    async with served() as house:
        house.launcher.manner = "hangs"
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await house.workers.ask("work", LOOK))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            house.launcher.manner = "works"
            house.launcher.peers.pop(1).close()
        assert isinstance(answers[0], words.LookedAt)
        assert house.launcher.started == ["work", "work"]


@in_trio
async def test_what_changes_something_is_not_asked_again() -> None:
    async with served() as house:
        house.launcher.manner = "hangs"

        async def ask() -> None:
            with pytest.raises(WorkerLost, match="look whether it was done"):
                await house.workers.ask("work", MAKE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            house.launcher.peers.pop(1).close()
        assert house.launcher.started == ["work"]


@in_trio
async def test_one_that_dies_at_once_every_time_is_told() -> None:
    async with served() as house:
        house.launcher.manner = "dies"
        with pytest.raises(Unavailable):
            await house.workers.ask("work", LOOK)
        assert house.launcher.started == ["work", "work"]


@in_trio
async def test_the_end_of_a_session_ends_its_worker_and_calls() -> None:
    async with served() as house:
        house.launcher.manner = "hangs"

        async def ask() -> None:
            with pytest.raises(WorkerLost):
                await house.workers.ask("work", MAKE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            house.workers.end_session("work")
            house.workers.end_session("nobody")
        assert house.workers.count == 0


@in_trio
async def test_a_worker_that_cannot_be_started_is_told() -> None:
    async with served() as house:
        house.launcher.fails = MountFailed("session 'work' is not open", errno=3)
        with pytest.raises(Unavailable, match="not open"):
            await house.workers.ask("work", LOOK)
        house.launcher.fails = None
        await house.workers.ask("work", LOOK)


@in_trio
async def test_a_fault_is_raised_as_its_error() -> None:
    async with served() as house:
        with pytest.raises(NotFound):
            await house.workers.ask("work", MAKE)


def test_an_answer_of_another_kind_is_a_fault_of_ours() -> None:
    with pytest.raises(InternalError):
        expect(words.FileDone(id=1), words.SomeRead)
    assert expect(words.FileDone(id=1), words.FileDone).id == 1
