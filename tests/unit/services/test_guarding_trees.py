"""`services.guarding_trees`: what the watch worker is told, and what becomes of what it sees."""

from __future__ import annotations

import trio

from coworkd.model.errors import Unavailable
from coworkd.model.folder import FolderChange
from coworkd.model.watch import (
    Missed,
    NotWatched,
    Seen,
    SeenChange,
    Unwatched,
    UnwatchTree,
    Watching,
    WatchTree,
)
from coworkd.services.guarding_callers import AGAIN_S
from tests.unit.services.guard_house import PLAIN, Far, GuardHouse, guard_house
from tests.unit.services.process_house import in_trio, jump, settle


def _seen(watch: int, path: bytes, *ancestry: int) -> SeenChange:
    change = FolderChange(change="create", path=path, pid=ancestry[0] if ancestry else 99, at=1.0)
    return SeenChange(watch=watch, change=change, ancestry=ancestry)


def _answer(worker: Far, **fields: object) -> list[object]:
    """Answer what was asked; what that was."""
    heard = worker.hear()
    for request in heard:
        if isinstance(request, WatchTree):
            worker.say(Watching(**{"id": request.id, "by": "fanotify", **fields}))  # type: ignore[arg-type]  # any field
        else:
            worker.say(Unwatched(id=request.id))
    return heard


async def _watch(house: GuardHouse, session: str = "bob", folder: str = "f", **fields: object) -> Far:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.guarding.watch, session, folder, PLAIN, b"/src", "rwd")
        await settle()
        _answer(house.workers.workers[-1], **fields)
    return house.workers.workers[-1]


@in_trio
async def test_a_change_is_its_session_s_whoever_else_has_the_folder() -> None:
    async with guard_house() as house:
        await _watch(house)
        worker = await _watch(house, "alice", "g")
        worker.say(
            Seen(changes=(_seen(1, b"a", 70, 50), _seen(2, b"a", 70, 50), _seen(2, b"b", 80, 60), _seen(1, b"c", 90)))
        )
        await settle()
        jump(1)
        await settle()
        told = {(each["session"], each["folder"], each["path"], each.get("process")) for each in house.told("activity")}
        assert told == {("bob", "f", b"a", "p1"), ("alice", "g", b"b", "p2")}


@in_trio
async def test_what_nobody_made_is_the_only_command_s_or_nobody_s() -> None:
    async with guard_house() as house:
        worker = await _watch(house)
        worker.say(Seen(changes=(_seen(1, b"a"),)))
        await settle()
        jump(1)
        await settle()
        house.processes.only = "p1"
        worker.say(Seen(changes=(_seen(1, b"b"),)))
        await settle()
        jump(1)
        await settle()
        assert [(each["path"], each["process"], each["inferred"]) for each in house.told("activity")] == [
            (b"b", "p1", True)
        ]


@in_trio
async def test_what_is_nobody_s_is_that_command_s_of_which_coworkd_hears_a_moment_later() -> None:
    async with guard_house() as house:
        worker = await _watch(house)
        worker.say(Seen(changes=(_seen(1, b"a"), _seen(1, b"b", 90))))
        await settle()
        house.processes.only = "p1"
        jump(AGAIN_S)
        await settle()
        jump(1)
        await settle()
        assert [(each["path"], each["process"]) for each in house.told("activity")] == [(b"a", "p1")]


@in_trio
async def test_a_worker_that_dies_is_started_again_and_told_everything() -> None:
    async with guard_house() as house:
        worker = await _watch(house)
        worker.end.close()
        await settle()
        assert house.state is not None
        assert "started again" in house.state
        jump(1)
        await settle()
        assert [type(each) for each in _answer(house.workers.workers[1])] == [WatchTree]
        await settle()
        assert house.state is None
        jump(1)
        await settle()
        assert [(each["change"], each["count"]) for each in house.told("activity")] == [("lost", 0)]


@in_trio
async def test_no_worker_keeps_no_folder_from_being_mounted() -> None:
    async with guard_house() as house:
        house.workers.error = Unavailable("the launcher is away")
        await house.guarding.watch("bob", "f", PLAIN, b"/src", "rwd")
        await settle()
        assert house.state == "changes in folders are not seen: the launcher is away"
        house.workers.error = None
        jump(30)
        await settle()
        _answer(house.workers.workers[0])
        await settle()
        assert house.state is None


@in_trio
async def test_what_is_not_seen_in_full_is_said_until_the_folder_goes() -> None:
    async with guard_house() as house:
        await _watch(house, by="inotify", unseen=7)
        assert house.state is not None
        assert "without who made them (inotify), and not at all in 7" in house.state
        house.guarding.unwatch("bob", "f")
        assert house.state is None
        await settle()
        assert [type(each) for each in house.workers.workers[0].hear()] == [UnwatchTree]


@in_trio
async def test_a_source_that_cannot_be_watched_is_said() -> None:
    async with guard_house() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.guarding.watch, "bob", "f", PLAIN, b"/src", "rwd")
            await settle()
            (request,) = house.workers.workers[0].hear()
            house.workers.workers[0].say(NotWatched(id=request.id, errno=2, message="No such file or directory"))
        assert house.state == "changes in folder 'f' of session bob are not seen: No such file or directory"


@in_trio
async def test_what_the_kernel_dropped_is_told_as_lost() -> None:
    async with guard_house() as house:
        worker = await _watch(house)
        worker.say(Missed(watches=(1, 77)))
        await settle()
        jump(1)
        await settle()
        assert [(each["session"], each["change"], each["count"]) for each in house.told("activity")] == [
            ("bob", "lost", 0)
        ]


@in_trio
async def test_what_is_still_said_of_a_folder_that_went_is_passed_over() -> None:
    async with guard_house() as house:
        worker = await _watch(house)
        house.guarding.unwatch("bob", "f")
        worker.say(Seen(changes=(_seen(1, b"a", 70, 50),)))
        await settle()
        jump(1)
        await settle()
        assert house.told("activity") == []


@in_trio
async def test_a_worker_that_hangs_holds_nobody_up_for_long() -> None:
    async with guard_house() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.guarding.watch, "bob", "f", PLAIN, b"/src", "rwd")
            await settle()
            jump(1)
        assert len(house.workers.workers) == 1
