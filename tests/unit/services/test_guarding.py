"""`services.guarding`: folders are listened to, deletes ask, and what ends is told."""

from __future__ import annotations

import os

import pytest
import trio

from coworkd.model.calls import ApprovalAnswer, ApprovalList
from coworkd.model.errors import Unavailable
from coworkd.model.folder import Asked, Changed, FolderChange
from coworkd.model.watch import WatchTree
from coworkd.services.guarding_callers import AGAIN_S
from tests.unit.services.guard_house import PLAIN, FakeFileSystem, GuardHouse, guard_house, settled
from tests.unit.services.process_house import in_trio, jump, settle_threads


def _asked(ask: int, path: bytes = b"a", pid: int = 70) -> Asked:
    return Asked(ask=ask, action="delete", path=path, pid=pid, at=1000.0)


async def _watch(house: GuardHouse, file_system: FakeFileSystem, *, ask: bool = True) -> None:
    await house.guarding.watch("bob", "f", file_system.mounted(), b"/src", "rw")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.guarding.set_mode, "bob", "f", "rw", ask)
        await settled(file_system)


@in_trio
@pytest.mark.parametrize(
    ("mode", "ask", "deletes"),
    [("rwd", False, "allow"), ("rwd", True, "allow"), ("rw", True, "ask"), ("rw", False, "deny")],
)
async def test_a_mode_is_a_rule(mode: str, ask: bool, deletes: str) -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await house.guarding.watch("bob", "f", file_system.mounted(), b"/src", mode)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.guarding.set_mode, "bob", "f", mode, ask)
            await settled(file_system)
        assert [(rule.deletes, rule.ask_timeout_s) for rule in file_system.rules] == [(deletes, 150.0)]
        file_system.close()


@in_trio
async def test_a_delete_that_waits_is_answered_by_a_person() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        file_system.say(_asked(1))
        await settle_threads()
        jump(0.1)
        await settle_threads()
        (approval,) = (await house.approvals.list(ApprovalList())).approvals
        assert (approval.session, approval.process, approval.folder) == ("bob", "p1", "f")
        await house.approvals.answer(ApprovalAnswer(approval=approval.approval, answer="once"), house.link)
        await settled(file_system)
        assert file_system.verdicts == [(1, True)]
        file_system.close()


@in_trio
@pytest.mark.parametrize(
    ("changed", "path"),
    [
        (Changed(number=1, changes=(FolderChange(change="rename", path=b"letter", to=b"d/a"),)), b"d/a"),
        (Changed(number=1, changes=(FolderChange(change="link", path=b"d/a", to=b"letter"),)), b"d/a"),
        (Changed(number=1, changes=(), lost=1), b""),
    ],
)
async def test_what_may_stand_elsewhere_is_told_to_who_has_allowed(
    changed: Changed, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        told: list[bytes] = []
        monkeypatch.setattr(house.approvals, "replaced", lambda _, path: told.append(path))
        await _watch(house, file_system)
        file_system.say(changed)
        await settle_threads()
        assert told == [path]
        file_system.close()


@in_trio
async def test_changes_are_told_with_who_made_them() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        changes = tuple(FolderChange(change="create", path=b"%d" % pid, pid=pid, at=1.0) for pid in (70, 71, 0, 90))
        house.processes.only = "p9"
        file_system.say(Changed(number=1, changes=changes, lost=3))
        await settle_threads()
        jump(AGAIN_S)  # before activity is told: of two that wake at once either may be the first
        await settle_threads()
        jump(1)
        await settle_threads()
        told = [(each.get("path"), each.get("process"), each.get("inferred")) for each in house.told("activity")]
        assert told == [
            (b"", None, None),
            (b"70", "p1", None),
            (b"71", "p9", True),
            (b"0", "p9", True),
            (b"90", None, None),
        ]
        assert house.told("activity")[0]["count"] == 3
        file_system.close()


@in_trio
async def test_a_change_is_that_command_s_of_which_coworkd_hears_a_moment_later() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        file_system.say(Changed(number=1, changes=(FolderChange(change="create", path=b"a", pid=71, at=1.0),)))
        await settle_threads()
        house.processes.only = "p9"
        jump(AGAIN_S)
        await settle_threads()
        jump(1)
        await settle_threads()
        assert [(each["path"], each["process"]) for each in house.told("activity")] == [(b"a", "p9")]
        file_system.close()


@in_trio
async def test_what_was_changed_just_before_coworkd_ends_is_told_of_nobody() -> None:
    for _ in range(5):  # whoever is ended first
        file_system = FakeFileSystem()
        async with guard_house() as house:
            await _watch(house, file_system)
            file_system.say(Changed(number=1, changes=(FolderChange(change="create", path=b"a", pid=71, at=1.0),)))
            while not house.processes.asked:
                await settle_threads()
        assert [(each["path"], each.get("process")) for each in house.told("activity")] == [(b"a", None)]
        file_system.close()


@in_trio
async def test_a_file_system_that_ends_is_told_and_its_questions_are_closed() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        file_system.say(_asked(1))
        await settle_threads()
        jump(0.1)
        await settle_threads()
        file_system.close()
        await settle_threads()
        ((session, folder, reason),) = house.failed
        assert (session, folder) == ("bob", "f")
        assert house.told("folder.failed") == [{"session": "bob", "name": "f", "error": reason}]
        assert house.told("approval.closed")[0]["answer"] == "ended"
        with pytest.raises(Unavailable, match="mount the folder anew"):
            await house.guarding.set_mode("bob", "f", "rw", True)


@in_trio
async def test_unmounted_it_is_no_failure_and_what_waits_is_refused() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        file_system.say(_asked(1))
        await settle_threads()
        jump(0.1)
        await settle_threads()
        house.guarding.unwatch("bob", "f")
        await settled(file_system)
        assert file_system.rules[-1].deletes == "deny"
        assert house.told("approval.closed")[0]["answer"] == "ended"
        file_system.close()
        await settle_threads()
        assert house.failed == []
        house.guarding.unwatch("bob", "f")


@in_trio
async def test_the_same_socket_is_taken_hold_of_again() -> None:
    """A session that was to be closed and was not: the launcher hands over the same conversation."""
    file_system = FakeFileSystem()
    async with guard_house() as house:
        again = os.dup(file_system.near_fd)
        await _watch(house, file_system)
        house.guarding.unwatch("bob", "f")
        file_system.near_fd = again
        await _watch(house, file_system)
        file_system.say(_asked(5))
        await settle_threads()
        jump(0.1)
        await settle_threads()
        assert house.told("approval.requested")[0]["paths"] == (b"a",)
        file_system.close()


@in_trio
async def test_where_coworkd_ends_what_waits_goes_on_waiting() -> None:
    file_system = FakeFileSystem()
    async with guard_house() as house:
        await _watch(house, file_system)
        file_system.say(_asked(1))
        await settle_threads()
        jump(0.1)
        await settle_threads()
        file_system.work()
    file_system.work()
    assert file_system.verdicts == []
    assert [rule.deletes for rule in file_system.rules] == ["ask"]
    file_system.close()


@in_trio
@pytest.mark.parametrize(("mode", "staged"), [("rwd", False), ("staged", True)])
async def test_a_folder_without_a_file_system_of_its_own_is_watched_from_outside(mode: str, staged: bool) -> None:
    async with guard_house() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.guarding.watch, "bob", "f", PLAIN, b"/src", mode)
            await settle_threads()
            jump(1)
        (request,) = house.workers.workers[0].hear()
        assert request == WatchTree(id=request.id, watch=1, path=b"/src", staged=staged)


@in_trio
async def test_a_folder_that_nobody_can_write_is_not_watched() -> None:
    async with guard_house() as house:
        await house.guarding.watch("bob", "f", PLAIN, b"/src", "ro")
        await settle_threads()
        assert house.workers.workers == []
