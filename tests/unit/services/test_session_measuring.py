from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.model.launch import WorkerKind
from coworkd.model.measure import MeasureTree, TreeMeasured
from coworkd.model.ports import WorkerHandle
from coworkd.services.session_measuring import Measuring
from coworkd.workers import measure
from tests.unit.services.measure_house import WorkerLauncher
from tests.unit.services.process_house import in_trio


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Measuring, WorkerLauncher]]:
    launcher = WorkerLauncher()
    measuring = Measuring(launcher)
    async with trio.open_nursery() as nursery:
        await nursery.start(measuring.serve)
        yield measuring, launcher
        nursery.cancel_scope.cancel()
    launcher.close()


def home_of(tmp_path: Path, *files: str) -> tuple[str, str]:
    for name in files:
        path = tmp_path / "homes/bob" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))
    return str(tmp_path / "homes"), "bob"


@in_trio
async def test_one_worker_does_all_the_work(tmp_path: Path) -> None:
    home = home_of(tmp_path, ".cache/a/b", "kept")
    async with serving() as (measuring, launcher):
        assert (await measuring.measure(home)).files == 4
        told = await measuring.prune(home, (b".cache",), before=0, larger_than_bytes=0, dry_run=True, limit=10)
        gone = await measuring.prune(home, (b".cache",), before=0, larger_than_bytes=0, dry_run=False, limit=10)
        assert [entry.path for entry in gone.entries] == [b".cache/a"]
        assert (told.entries, told.size_bytes) == (gone.entries, gone.size_bytes)
        assert (await measuring.measure(home)).files == 2
        assert await measuring.reown(home, 59_998, 59_999) == 0
        assert launcher.started == 1


@in_trio
async def test_a_worker_that_dies_at_work_is_told_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(tmp_path, "kept")
    async with serving() as (measuring, launcher):

        def die(request: MeasureTree) -> TreeMeasured:
            launcher.kill()
            raise OSError

        with monkeypatch.context() as dying:
            dying.setattr(measure, "measure", die)
            with pytest.raises(Unavailable, match="try again"):
                await measuring.measure(home)
        assert (await measuring.measure(home)).files == 1
        assert launcher.started == 2


@in_trio
async def test_what_the_disk_refuses_is_told_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with serving() as (measuring, _):
        with pytest.raises(DiskFailed, match="file/bob: Not a directory"):
            await measuring.measure((str(tmp_path / "file"), "bob"))


@in_trio
async def test_a_worker_that_comes_when_coworkd_ends_is_let_go(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    launcher = WorkerLauncher()
    measuring = Measuring(launcher)
    begun, going = trio.Event(), trio.Event()
    start = launcher.start_worker

    async def start_late(kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        begun.set()
        await going.wait()
        return await start(kind, session)

    async def ask() -> None:
        with pytest.raises(Unavailable, match="ending"):
            await measuring.measure(home)

    launcher.start_worker = start_late  # type: ignore[method-assign]
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as inner:
            await inner.start(measuring.serve)
            outer.start_soon(ask)
            await begun.wait()
            inner.cancel_scope.cancel()
        going.set()
    launcher.close()


@in_trio
async def test_no_launcher_is_told(tmp_path: Path) -> None:
    measuring = Measuring(WorkerLauncher())
    with pytest.raises(Unavailable, match="not ready"):
        await measuring.measure(home_of(tmp_path, "kept"))
    async with serving() as (measuring, launcher):
        launcher.error = Unavailable("the launcher is gone")
        with pytest.raises(Unavailable, match="launcher is gone"):
            await measuring.measure(home_of(tmp_path, "kept"))
