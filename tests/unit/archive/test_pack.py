import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from coworkd.archive.pack import Pack


def packed(top: Path, name: bytes | None = None, told_as: bytes = b"", **options: object) -> tuple[Pack, bytes]:
    pack = Pack(**{"entries_limit": 1000, **options})  # type: ignore[arg-type]
    directory = os.open(top, os.O_RDONLY)
    try:
        return pack, b"".join(pack.chunks(directory, name, told_as))
    finally:
        os.close(directory)


def names_of(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_directories_come_before_what_is_in_them_and_names_in_order(tmp_path: Path) -> None:
    for name in ("b/y", "b/x", "a", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    pack, data = packed(tmp_path)
    assert names_of(data) == [".", "a", "b", "b/x", "b/y", "c", "c/d", "c/d/e"]
    assert (pack.entries, pack.omitted) == (8, 0)


def test_one_entry_is_told_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"1")
    assert names_of(packed(tmp_path, b"d", b"other")[1]) == ["other", "other/f"]
    assert names_of(packed(tmp_path / "d", b"f", b"f")[1]) == ["f"]


def test_a_link_is_told_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(".")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path)[1])) as tar:
        assert [(member.name, member.linkname) for member in tar if member.issym()] == [("loop", ".")]


def test_a_tree_deeper_than_a_path_may_be_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    pack, data = packed(tmp_path)
    assert pack.omitted == 1
    assert max(len(name) for name in names_of(data)) < 4096


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").touch()
    really = os.open

    def guarded(path: object, flags: int, *args: object, **options: object) -> int:
        if isinstance(path, bytes) and path != b"05":
            raise PermissionError(errno.EACCES, "Permission denied")
        return really(path, flags, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", guarded)
    pack, data = packed(tmp_path)
    assert names_of(data) == [".", "05"]
    assert pack.omitted == 29
    assert len(pack.left_out) == 16
    assert pack.left_out[0] == (b"00", "Permission denied")


def test_a_fault_of_the_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()

    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    pack = Pack(entries_limit=10)
    directory = os.open(tmp_path, os.O_RDONLY)
    chunks = pack.chunks(directory, b"a", b"a")
    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(OSError, match="Input/output"):
        list(chunks)
    monkeypatch.undo()
    os.close(directory)


def test_a_file_that_shrinks_is_filled_up_and_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes([7]) * 3_000_000)
    pack = Pack(entries_limit=10)
    directory = os.open(tmp_path, os.O_RDONLY)
    chunks = pack.chunks(directory, b"a", b"a")
    got = [next(chunks), next(chunks)]
    os.truncate(tmp_path / "a", 1000)
    got += chunks
    os.close(directory)
    with tarfile.open(fileobj=io.BytesIO(b"".join(got))) as tar:
        file = tar.extractfile("a")
        assert file is not None
        content = file.read()
    assert len(content) == 3_000_000
    assert content[-1] == 0
    assert pack.omitted == 1
    assert "shorter" in pack.left_out[0][1]


def test_a_file_that_grows_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    pack = Pack(entries_limit=10)
    directory = os.open(tmp_path, os.O_RDONLY)
    chunks = pack.chunks(directory, b"a", b"a")
    got = [next(chunks)]
    with open(tmp_path / "a", "ab") as file:
        file.write(b"6789")
    got += chunks
    os.close(directory)
    with tarfile.open(fileobj=io.BytesIO(b"".join(got))) as tar:
        file_found = tar.extractfile("a")
        assert file_found is not None
        assert file_found.read() == b"12345"


def test_more_entries_than_may_be_are_told(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    with pytest.raises(OSError, match="more than 5 entries") as caught:
        packed(tmp_path, entries_limit=5)
    assert caught.value.errno == errno.E2BIG


def test_what_the_check_refuses_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    inode = os.stat(tmp_path / "a").st_ino

    def check(fd: int) -> None:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EACCES, "refused here")

    pack, data = packed(tmp_path, check=check)
    assert names_of(data) == [".", "b"]
    assert pack.left_out == [(b"a", "refused here")]


def test_a_pack_that_is_abandoned_closes_what_it_has_open(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(bytes(1_000_000))
    directory = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    chunks = Pack(entries_limit=10).chunks(directory, None, b"")
    for _ in range(4):
        next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(directory)
