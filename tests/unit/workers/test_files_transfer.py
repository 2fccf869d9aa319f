import errno
import io
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.model import files as words
from tests.unit.workers.files_talk import Talk, talking, upload

MIB = 1024 * 1024
_AT_REST = 4
"""Standard input and output, standard error, and the conversation."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Talk]:
    with talking() as talk:
        yield talk


def archive(*members: tuple[str, bytes | None]) -> bytes:
    """A name with bytes is a file, without a directory."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            info.mode = 0o755 if data is None else 0o640
            tar.addfile(info, io.BytesIO(data or b""))
    return made.getvalue()


def test_an_uploaded_file_is_there_when_it_is_told_and_not_before(worker: Talk, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB + 17)
    answer, transfer = worker.transfer(upload(tmp_path / "a", mode=0o600))
    assert isinstance(answer, words.FileDone)
    transfer.stream.sendall(data)
    assert os.listdir(tmp_path) == []
    assert transfer.finish(len(data)) == words.Moved(entries=1, size=len(data))
    assert (tmp_path / "a").read_bytes() == data
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("tar", [False, True])
def test_an_upload_that_breaks_off_leaves_nothing(worker: Talk, tmp_path: Path, tar: bool) -> None:
    (tmp_path / "d").mkdir()
    where = tmp_path / "d" if tar else tmp_path / "d/a"
    _, transfer = worker.transfer(upload(where, tar=tar))
    transfer.stream.sendall(archive(("a", bytes(100_000)))[:50_000] if tar else bytes(50_000))
    transfer.stream.shutdown(socket.SHUT_WR)
    told = transfer.ended()
    assert isinstance(told, words.FileFault)
    assert told.stage == "aborted"
    assert os.listdir(tmp_path / "d") == []


def test_an_upload_whose_sender_vanishes_leaves_nothing(worker: Talk, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    _, transfer = worker.transfer(upload(tmp_path / "a"))
    transfer.stream.sendall(bytes(50_000))
    transfer.close()
    deadline = time.monotonic() + 60
    while _open_below(worker.pid, tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def _open_below(pid: int, directory: Path) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return [path for path in found if path.startswith(str(directory))]


def test_an_upload_that_is_shorter_than_said_is_not_taken(worker: Talk, tmp_path: Path) -> None:
    _, transfer = worker.transfer(upload(tmp_path / "a"))
    transfer.stream.sendall(b"abc")
    told = transfer.finish(4)
    assert isinstance(told, words.FileFault)
    assert os.listdir(tmp_path) == []


def test_zeros_become_holes(worker: Talk, tmp_path: Path) -> None:
    data = bytes(8 * MIB) + b"end" + bytes(8 * MIB)
    assert worker.upload(tmp_path / "a", data) == words.Moved(entries=1, size=len(data))
    assert (tmp_path / "a").read_bytes() == data
    assert os.stat(tmp_path / "a").st_blocks * 512 < MIB


def test_an_upload_that_cannot_fit_is_refused_before_its_first_byte(worker: Talk, tmp_path: Path) -> None:
    answer, transfer = worker.transfer(upload(tmp_path / "a", size=1 << 60))
    assert isinstance(answer, words.FileFault)
    assert answer.errno == errno.ENOSPC
    transfer.close()
    assert os.listdir(tmp_path) == []


def test_an_upload_where_nothing_can_be_is_refused_at_once(worker: Talk, tmp_path: Path) -> None:
    for path in (tmp_path / "none/a", tmp_path, Path("/proc/self/a")):
        answer, transfer = worker.transfer(upload(path))
        assert isinstance(answer, words.FileFault), path
        transfer.close()


def test_a_downloaded_file_comes_whole(worker: Talk, tmp_path: Path) -> None:
    data = os.urandom(5 * MIB + 1)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        assert worker.download(tmp_path / name) == (data, words.Moved(entries=1, size=len(data)))
    (tmp_path / "empty").touch()
    assert worker.download(tmp_path / "empty") == (b"", words.Moved(entries=1, size=0))


def test_a_file_that_shrinks_on_its_way_is_told(worker: Talk, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(16 * MIB))
    answer, transfer = worker.transfer(words.Download(id=0, path=os.fsencode(tmp_path / "a"), tar=False))
    assert isinstance(answer, words.DownloadBegun)
    assert answer.size == 16 * MIB
    os.truncate(tmp_path / "a", MIB)
    data = transfer.read_all()
    told = transfer.ended()
    assert len(data) < 16 * MIB
    assert isinstance(told, words.FileFault)
    assert told.stage == "shrunk"


def test_a_file_that_grows_on_its_way_is_cut_where_it_was_said_to_end(worker: Talk, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(4 * MIB))
    _, transfer = worker.transfer(words.Download(id=0, path=os.fsencode(tmp_path / "a"), tar=False))
    with open(tmp_path / "a", "ab") as file:
        file.write(b"more")
    assert len(transfer.read_all()) == 4 * MIB
    assert transfer.ended() == words.Moved(entries=1, size=4 * MIB)


def test_a_tree_goes_round_and_is_the_same(worker: Talk, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub/deep").mkdir(parents=True)
    (tree / "sub/file").write_bytes(os.urandom(100_000))
    (tree / "exec").write_bytes(b"#!/bin/sh\n")
    os.chmod(tree / "exec", 0o755)
    (tree / "link").symlink_to("/nowhere/at/all")
    with open(os.fsencode(tree) + b"/odd\n\xff", "wb") as file:
        file.write(b"odd")
    os.utime(tree / "sub/file", ns=(0, 1_234_567_890_123_456_789))
    os.chmod(tree / "sub/deep", 0o500)
    data, told = worker.download(tree, tar=True)
    assert isinstance(told, words.Moved)
    assert told.omitted == 0
    assert isinstance(worker.upload(tmp_path / "copy", data, tar=True), words.Moved)
    assert _seen(tmp_path / "copy") == _seen(tree)


def _seen(top: Path) -> dict[bytes, tuple[int, int, bytes]]:
    found = {}
    for directory, subdirectories, files in os.walk(os.fsencode(top)):
        for path in (directory, *(os.path.join(directory, name) for name in subdirectories + files)):
            seen = os.lstat(path)
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isdir(path):
                content = b""
            else:
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, os.fsencode(top))] = (seen.st_mode, seen.st_mtime_ns, content)
    return found


def test_a_single_file_downloads_as_an_archive_too(worker: Talk, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    data, told = worker.download(tmp_path / "a", tar=True)
    assert isinstance(told, words.Moved)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["a"]


def test_what_has_no_place_in_an_archive_is_told(worker: Talk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "proc").symlink_to("/proc/self")
    data, told = worker.download(tmp_path, tar=True)
    assert isinstance(told, words.Moved)
    assert told.omitted == 2
    assert [line.partition(b":")[0] for line in told.left_out] == [b"fifo", b"sock"]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [".", "file", "proc"]


def test_an_entry_that_is_refused_ends_the_upload_and_is_named(worker: Talk, tmp_path: Path) -> None:
    told = worker.upload(tmp_path / "d", archive(("fine", b"1"), ("../out", b"2")), tar=True)
    assert isinstance(told, words.FileFault)
    assert (told.stage, told.path) == ("archive", b"../out")
    assert os.listdir(tmp_path) == ["d"]
    assert os.listdir(tmp_path / "d") == ["fine"]


def test_what_is_no_archive_is_told(worker: Talk, tmp_path: Path) -> None:
    for data in (os.urandom(2000), b"", archive(("a", b"x"))[:512]):
        told = worker.upload(tmp_path / "d", data, tar=True)
        assert isinstance(told, words.FileFault)
        assert told.stage == "archive"
    assert os.listdir(tmp_path / "d") == []


def test_an_archive_into_a_file_is_refused(worker: Talk, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    answer, transfer = worker.transfer(upload(tmp_path / "a", tar=True))
    assert isinstance(answer, words.FileFault)
    assert answer.errno == errno.ENOTDIR
    transfer.close()


def test_ten_thousand_files_go_round(worker: Talk, tmp_path: Path) -> None:
    members: list[tuple[str, bytes | None]] = [(f"d{n // 100}/f{n}", b"%d" % n * (n % 50)) for n in range(10_000)]
    assert worker.upload(tmp_path / "t", archive(*members), tar=True) == words.Moved(
        entries=10_000, size=sum(len(data or b"") for _, data in members)
    )
    data, told = worker.download(tmp_path / "t", tar=True)
    assert isinstance(told, words.Moved)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                found[member.name] = content.read()
    assert found == dict(members)


def test_memory_and_descriptors_do_not_grow_with_what_moves(worker: Talk, tmp_path: Path) -> None:
    worker.upload(tmp_path / "a", bytes(MIB))
    descriptors = _settled(worker)
    before = _rss_kib(worker.pid)
    _, transfer = worker.transfer(upload(tmp_path / "a"))
    piece = bytes(range(256)) * 4096
    for _ in range(128):
        transfer.stream.sendall(piece)
    assert isinstance(transfer.finish(128 * MIB), words.Moved)
    _, transfer = worker.transfer(words.Download(id=0, path=os.fsencode(tmp_path / "a"), tar=True))
    while transfer.stream.recv(MIB):
        pass
    assert isinstance(transfer.ended(), words.Moved)
    assert _rss_kib(worker.pid) - before < 8 * 1024
    assert _settled(worker) == descriptors


def _settled(worker: Talk) -> int:
    """How many descriptors it has, once those of the last transfer are closed: that comes after its end was told."""
    deadline = time.monotonic() + 60
    while (count := len(os.listdir(f"/proc/{worker.pid}/fd"))) > _AT_REST and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def _rss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
