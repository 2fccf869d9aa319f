from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, MountFailed, NotFound, Unavailable
from coworkd.model.names import OsBytes
from coworkd.services import stages
from coworkd.services.stages import parse_paths
from tests.unit.services.process_house import in_trio, jump, settle
from tests.unit.services.stage_house import FOLDER, SESSION, open_house, wait_for_baseline


@in_trio
async def test_a_stage_is_made_where_folders_find_it_and_its_baseline_follows(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        (house.source / "a").write_bytes(b"a")
        stage = await house.mount()
        assert stage.startswith(bytes(house.state / FOLDER))
        assert house.upper.is_dir()
        await wait_for_baseline(house)


@in_trio
async def test_changes_are_told_and_committed(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        (house.source / "a").write_bytes(b"old")
        await house.mount()
        (house.upper / "a").write_bytes(b"new content")
        (change,) = (await house.changes()).changes
        assert (change.path, change.kind, change.size, change.old_size) == (b"a", "modified", 11, 3)
        done = await house.commit()
        assert (done.committed, done.results[0].path) == (1, b"a")
        assert ((house.source / "a").read_bytes(), (await house.changes()).total) == (b"new content", 0)


@in_trio
async def test_the_audit_log_has_a_commit_before_and_after_and_the_folder_is_away_between(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        (house.upper / "a").write_bytes(b"a")
        await house.commit(b"a", overwrite=True)
        assert house.audit.records == [
            ("away", {}),
            ("folder.commit", {"session": SESSION, "name": FOLDER, "paths": (b"a",), "overwrite": True}),
            (
                "folder.committed",
                {"session": SESSION, "name": FOLDER, "committed": 1, "conflicts": 0, "failed": 0, "paths": [b"a"]},
            ),
        ]
        assert house.trace == ["away", "back"]
        assert [event.name for event in house.events.published] == ["folder.committed"]


@pytest.mark.parametrize("kind", ["folder.commit", "folder.discard"])
@in_trio
async def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, kind: str) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        (house.upper / "a").write_bytes(b"a")
        house.audit.full.add(kind)
        with pytest.raises(DiskFailed):
            await (house.commit() if kind == "folder.commit" else house.discard())
        assert (os.listdir(house.source), os.listdir(house.upper)) == ([], ["a"])


@in_trio
async def test_a_discard_drops_changes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        for name in ("a", "b"):
            (house.upper / name).write_bytes(b"x")
        assert await house.discard(b"a") == 1
        assert [change.path for change in (await house.changes()).changes] == [b"b"]
        assert await house.discard() == 1
        assert [event.params["discarded"] for event in house.events.published] == [1, 1]


@in_trio
async def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        (house.upper / "a").write_bytes(b"a")
        house.busy = True
        for verb in (house.commit, house.discard):
            with pytest.raises(InvalidState, match="in use"):
                await verb()
        assert house.audit.records == []


@in_trio
async def test_only_a_staged_folder_holds_anything_back(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.mode = "rw"
        for verb in (house.changes, house.commit, house.discard):
            with pytest.raises(InvalidState, match="is rw"):
                await verb()
        assert house.trace == []


@in_trio
async def test_a_diff_is_of_one_path_and_of_a_change_only(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        (house.upper / "a").write_bytes(b"new\n")
        assert (await house.changes(diff=OsBytes(b"./a"))).diff == b"--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+new\n"
        with pytest.raises(NotFound, match="has not changed"):
            await house.changes(diff=OsBytes(b"b"))


@in_trio
async def test_a_page_goes_on_behind_the_last(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        for name in ("a", "b", "c"):
            (house.upper / name).write_bytes(b"x")
        first = await house.changes(limit=2)
        rest = await house.changes(after=first.changes[-1].path)
        assert ([change.path for change in rest.changes], first.more, rest.more) == ([b"c"], True, False)


@in_trio
async def test_a_source_that_is_gone_is_told_with_its_errno(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        house.source.rmdir()
        with pytest.raises(DiskFailed, match="No such file") as raised:
            await house.changes()
        assert raised.value.details["errno"] == 2


@in_trio
async def test_a_worker_that_dies_in_a_commit_is_told_and_the_same_again_ends_it(tmp_path: Path) -> None:
    def die(connection: socket.socket) -> None:
        connection.recvmsg(70_000)

    async with open_house(tmp_path) as house:
        served, house.launcher.serve = house.launcher.serve, die
        with pytest.raises(Unavailable, match="try again"):
            await house.mount()
        house.launcher.serve = served
        await house.mount()
        (house.upper / "a").write_bytes(b"a")
        assert (await house.commit()).committed == 1


@in_trio
async def test_a_source_that_does_not_answer_fails_the_mount_alone(tmp_path: Path) -> None:
    def hang(connection: socket.socket) -> None:
        while connection.recvmsg(70_000)[0]:
            pass

    async def mount() -> None:
        with pytest.raises(MountFailed, match="has not answered"):
            await house.mount()

    async with open_house(tmp_path) as house:
        house.launcher.serve = hang
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount)
            await settle()
            jump(stages.PREPARE_S)
        assert house.launcher.killed == [1]


@in_trio
async def test_forgetting_removes_one_stage_or_all_of_a_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.mount()
        await house.stages.forget(SESSION, FOLDER)
        assert not (house.state / FOLDER).exists()
        await house.mount()
        await house.stages.forget(SESSION, None)
        assert not house.state.exists()
        started = house.launcher.started
        await house.stages.forget("nobody", None)
        assert house.launcher.started == started


@in_trio
async def test_another_source_of_the_same_name_has_a_stage_of_its_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        (tmp_path / "share" / "other").mkdir()
        one = await house.mount()
        assert await house.stages.prepare(SESSION, FOLDER, (house.root, b"other")) != one
        assert await house.mount() == one


@in_trio
async def test_a_launcher_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        house.launcher.error = Unavailable("the launcher is away")
        with pytest.raises(Unavailable, match="launcher is away"):
            await house.mount()


def test_paths_are_those_of_a_walk() -> None:
    assert parse_paths((b"a", b"./a//b/", b".", b"a\n")) == (b"a", b"a/b", b"", b"a\n")


@pytest.mark.parametrize("path", [b"/a", b"a/../b", b"..", b"x" * 70_000])
def test_a_path_that_leads_out_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidParams, match="below the folder"):
        parse_paths((path,))
