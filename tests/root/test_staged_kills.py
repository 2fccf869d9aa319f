"""The stage worker killed at random moments of a commit, as a program of its own; and sources and disks that refuse."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from coworkd.model.stage import (
    CommitStaged,
    DiscardStaged,
    FromStage,
    Prepared,
    PrepareStage,
    StageCommitted,
    StagePlace,
    TakeBaseline,
    TidyStage,
)
from coworkd.system.worker_socket import WorkerSocket
from coworkd.workers.stage_work import answer

FILES = 1500
ROUNDS = 10
_WORKER = "import socket, sys; from coworkd.workers.stage import serve; serve(socket.socket(fileno=int(sys.argv[1])))"


class Worker:
    """A worker in a process of its own."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            self.child = subprocess.Popen([sys.executable, "-c", _WORKER, str(number)], pass_fds=(number,))
        self.socket = ours
        self.link: WorkerSocket[FromStage] = WorkerSocket(ours, msgspec.msgpack.Decoder(FromStage))

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.socket.close()


def stage_of(top: Path) -> StagePlace:
    """A stage of a source with old files, where each is changed, some are gone and some new."""
    source, stage = top / "share" / "source", top / "stage"
    for number in range(FILES):
        path = source / f"d{number % 20}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old %d" % number)
    place = StagePlace(stage=bytes(stage), root=bytes(top / "share"), source=b"source")
    assert isinstance(answer(PrepareStage(id=1, place=place, uid=0, gid=0), _no_step), Prepared)
    answer(TakeBaseline(id=2, place=place), _no_step)
    for number in range(FILES + 200):
        path = stage / "upper" / f"d{number % 20}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 10 == 3:
            os.mknod(path, 0o020000, os.makedev(0, 0))
        else:
            path.write_bytes(b"new %d" % number)
    return place


def _no_step(path: bytes) -> None:
    """Nobody asks how far it is."""


def commit(place: StagePlace) -> CommitStaged:
    return CommitStaged(id=3, place=place, paths=None, overwrite=False)


@contextlib.contextmanager
def worker() -> Iterator[Worker]:
    made = Worker()
    try:
        yield made
    finally:
        made.end()


def test_a_worker_killed_at_any_moment_leaves_each_file_old_or_new(tmp_path: Path) -> None:
    chance = random.Random(20261127)
    place = stage_of(tmp_path)
    source = tmp_path / "share" / "source"
    killed = 0
    for _ in range(ROUNDS):
        with worker() as working:
            working.link.send(commit(place))
            working.socket.settimeout(chance.uniform(0.15, 0.6))
            try:
                received = working.socket.recv(1)
            except TimeoutError:
                os.kill(working.child.pid, signal.SIGKILL)
                killed += 1
            else:
                assert received
        for path in source.glob("d*/[0-9]*"):
            assert path.read_bytes() in (b"old " + path.name.encode(), b"new " + path.name.encode())
    with worker() as working:
        working.link.send(commit(place))
        while True:
            got = working.link.receive()
            assert got is not None
            if isinstance(got[0], StageCommitted):
                assert (got[0].conflicts, got[0].failed) == (0, 0), got[0].results[:3]
                break
    found = {path.name: path.read_bytes() for path in source.glob("d*/*")}
    assert found == {str(n): b"new %d" % n for n in range(FILES + 200) if n % 10 != 3}
    assert not list(source.rglob(".coworkd-commit-*"))
    assert killed > 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tiny file system, mounted nowhere else."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small ext4, where a directory takes a block to be made or to grow."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-N", "4096", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def prepared(root: Path, stage: Path) -> StagePlace:
    (root / "source").mkdir()
    place = StagePlace(stage=bytes(stage), root=bytes(root), source=b"source")
    assert isinstance(answer(PrepareStage(id=1, place=place, uid=0, gid=0), _no_step), Prepared)
    return place


def test_a_source_that_becomes_full_half_way_fails_what_found_no_room_alone(small: Path, tmp_path: Path) -> None:
    place = prepared(small, tmp_path / "stage")
    for number in range(10):
        (tmp_path / "stage" / "upper" / str(number)).write_bytes(bytes([number]) * 300_000)
    done = answer(commit(place), _no_step)
    assert isinstance(done, StageCommitted)
    assert (done.committed, done.failed) == (3, 7)
    assert {each.reason for each in done.results if each.state == "failed"} == {"No space left on device"}
    assert not list((small / "source").glob(".coworkd*"))
    assert len(list((tmp_path / "stage" / "upper").iterdir())) == 7


def test_a_source_that_is_read_only_fails_each_path_with_its_reason(small: Path, tmp_path: Path) -> None:
    place = prepared(small, tmp_path / "stage")
    (tmp_path / "stage" / "upper" / "a").write_bytes(b"a")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    done = answer(commit(place), _no_step)
    assert isinstance(done, StageCommitted)
    assert [(each.path, each.state, each.reason) for each in done.results] == [
        (b"a", "failed", "Read-only file system")
    ]


@pytest.mark.needs("loop")
@pytest.mark.parametrize("discards", [False, True])
def test_a_stage_on_a_full_disk_is_committed_or_dropped_all_the_same(
    disk: Path, tmp_path: Path, discards: bool
) -> None:
    place = prepared(tmp_path, disk / "stage")
    upper = disk / "stage" / "upper"
    for number in range(300):
        name = f"{number:03}-" + "x" * 200  # so that they do not fit into one block of a directory
        (upper / name).write_bytes(b"x")
    (upper / "d" / "e").mkdir(parents=True)
    os.setxattr(upper / "d", "trusted.overlay.opaque", b"y")
    (upper / "d" / "e" / "f").write_bytes(b"x")
    with contextlib.suppress(OSError), (upper / "filler").open("wb", 0) as filler:
        while True:
            filler.write(bytes(4096))
    if discards:
        answer(DiscardStaged(id=4, place=place, paths=None), _no_step)
        assert list((tmp_path / "source").iterdir()) == []
    else:
        done = answer(commit(place), _no_step)
        assert isinstance(done, StageCommitted), done
        assert (done.committed, done.failed) == (304, 0)
    assert list(upper.iterdir()) == []
    answer(TidyStage(id=5, path=place.stage), _no_step)
    assert sorted(os.listdir(disk / "stage")) == ["about", "intent", "since", "upper", "work"]
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 8 << 20
