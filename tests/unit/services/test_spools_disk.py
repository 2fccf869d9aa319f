"""`services.spools_disk`: what memory spools do, with a file of a disk and threads between."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from coworkd.model.process import OnFull
from coworkd.services import spools_disk
from coworkd.services.spools_disk import DiskPump, DiskSpool
from coworkd.system import spool_file
from tests.unit.services.process_house import PAGE, in_trio
from tests.unit.services.test_spools import LIMIT, Reader, pages


class Rig:
    """A pump between a pipe and a spool on a disk; `nursery` has what it starts."""

    def __init__(self, path: Path, nursery: trio.Nursery, on_full: OnFull | None = None) -> None:
        self.nursery = nursery
        self.path = path
        fd = os.open(path / "spool", os.O_RDWR | os.O_CREAT)
        self.spool = DiskSpool(fd, limit_bytes=LIMIT, on_full=on_full, later=nursery.start_soon)
        read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.ended = trio.Event()
        self.failed: list[OSError] = []
        self.pump = DiskPump(read_fd, self.spool, ended=self.ended.set, failed=self.failed.append)

    def begin(self, may_begin: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint) -> None:
        self.nursery.start_soon(self.pump.run, may_begin)

    async def write(self, data: bytes) -> None:
        """Write all, as a command does that waits for room."""
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self.write_fd)
            view = view[os.write(self.write_fd, view) :]

    async def end(self) -> None:
        os.close(self.write_fd)
        await self.ended.wait()


async def until(done: Callable[[], bool]) -> None:
    """Threads do the work, on their own time."""
    with trio.fail_after(60):
        while not done():
            await trio.lowlevel.checkpoint()


async def run(test: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        await test(nursery)
        nursery.cancel_scope.cancel()


def in_real_time(test: Callable[..., Awaitable[None]]) -> Callable[[Path], None]:
    """Threads take their own time; nothing here sleeps."""

    def wrapped(tmp_path: Path) -> None:
        trio.run(run, lambda nursery: test(tmp_path, nursery))

    wrapped.__name__ = test.__name__
    return wrapped


@in_real_time
async def test_everything_comes_over_and_the_end_is_told_once(path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(path, nursery)
    reader = Reader()
    rig.spool.follow(reader)
    rig.begin()
    got = b""
    for number in range(0, 32, 4):
        await rig.write(pages(number, number + 4))
        await until(lambda number=number: rig.spool.end == (number + 4) * PAGE)  # type: ignore[misc]
        while data := reader.take(rig.spool, 3000):
            got += data
    await rig.end()
    assert got == pages(0, 32)
    assert rig.failed == []
    rig.spool.close()


@in_real_time
async def test_what_is_dropped_is_a_hole_on_the_disk(path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(path, nursery, "drop_oldest")
    rig.begin()
    await rig.write(pages(0, 200))
    await rig.end()
    assert rig.spool.read(rig.spool.first, PAGE) == (rig.spool.first, pages(rig.spool.first // PAGE, 200)[:PAGE])
    assert rig.spool.kept_bytes < LIMIT + 2 * PAGE
    assert (path / "spool").stat().st_blocks * 512 < 64 * PAGE
    rig.spool.close()


@in_real_time
async def test_nothing_is_written_before_it_may_begin(path: Path, nursery: trio.Nursery) -> None:
    rig, may_begin = Rig(path, nursery), trio.Event()
    rig.begin(may_begin.wait)
    await rig.write(b"bwrap: no")
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    assert rig.spool.end == 0
    may_begin.set()
    await until(lambda: rig.spool.end == 9)
    rig.pump.close()
    rig.spool.close()
    os.close(rig.write_fd)


@in_real_time
async def test_a_full_disk_cuts_the_stream_and_holds_nobody(path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(path, nursery, "block")
    rig.begin()
    await rig.write(b"kept")
    await until(lambda: rig.spool.end == 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools_disk, "free_bytes", lambda where: 0)
        await rig.write(b"x" * 64 * PAGE)
        await until(lambda: rig.spool.end == 4 + 64 * PAGE)
    await rig.write(b"y" * 64 * PAGE)
    await rig.end()
    assert [error.errno for error in rig.failed] == [errno.ENOSPC]
    assert (rig.spool.cut_at, rig.spool.end, rig.spool.lost) == (4, 4 + 128 * PAGE, True)
    assert rig.spool.read(0, 10) == (0, b"kept")
    assert spool_file.size(rig.spool.fileno()) == 4
    rig.spool.close()


@in_real_time
async def test_what_the_cache_has_not_is_fetched_and_told(path: Path, nursery: trio.Nursery) -> None:
    rig = Rig(path, nursery)
    rig.begin()
    await rig.write(b"abc")
    await rig.end()
    reader = Reader()
    rig.spool.follow(reader)
    refused = [BlockingIOError(errno.EAGAIN, "not in the cache")]
    preadv = os.preadv

    def once(*arguments: object) -> int:
        if refused:
            raise refused.pop()
        return preadv(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", once)
        assert reader.take(rig.spool, 10) == b""
        await until(lambda: reader.told == 1)
        assert reader.take(rig.spool, 10) == b"abc"
    rig.spool.close()


@in_trio
async def test_a_pump_that_is_closed_lets_its_pipe_go(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        rig = Rig(tmp_path, nursery)
        rig.begin(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    with pytest.raises(BrokenPipeError):
        os.write(rig.write_fd, b"x")
    assert rig.spool.eof
    os.close(rig.write_fd)
    rig.spool.close()
