from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import structs

from coworkd.workers.stage_entries import (
    IDENT_BYTES,
    Ident,
    above,
    all_above,
    ident_of,
    is_same,
    is_whiteout,
    join,
    kind_of,
    look,
    name_of,
    parent_of,
    unpack,
    walk_key,
)

FILE = Ident("file", 0o644, 5, 10, 20, 7)


def test_an_ident_is_kept_and_read() -> None:
    assert len(FILE.pack()) == IDENT_BYTES
    assert unpack(FILE.pack()) == FILE


@pytest.mark.parametrize("data", [b"", b"\xff" * IDENT_BYTES, bytes(IDENT_BYTES - 1)])
def test_what_is_no_ident_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no record"):
        unpack(data)


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode"])
def test_a_file_that_differs_is_another(field: str) -> None:
    assert is_same(FILE, FILE)
    assert not is_same(FILE, structs.replace(FILE, **{field: 99}))


def test_a_directory_is_the_same_while_it_is_one() -> None:
    directory = structs.replace(FILE, kind="directory")
    assert is_same(directory, structs.replace(directory, ctime_ns=99, size=99))
    assert not is_same(directory, FILE)


def test_an_entry_that_is_written_to_is_another_whatever_its_mtime_says(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # timestamps are as coarse as a tick
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_same(ident_of(before), ident_of(path.stat()))


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    kinds = [kind_of(path.lstat().st_mode) for path in (tmp_path, *(tmp_path / n for n in ("file", "link", "fifo")))]
    assert kinds == ["directory", "file", "symlink", "other"]


def test_a_whiteout_is_a_device_that_cannot_be(tmp_path: Path) -> None:
    os.mknod(tmp_path / "gone", 0o020000, os.makedev(0, 0))
    assert is_whiteout((tmp_path / "gone").lstat())
    assert not is_whiteout(os.stat("/dev/null"))


def test_looking_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    fd = os.open(tmp_path, os.O_RDONLY)
    found, missing = look(b"link", fd), look(b"nothing", fd)
    os.close(fd)
    assert (found is not None, missing) == (True, None)


def test_a_walk_puts_a_directory_before_what_lies_in_it_and_all_that_before_the_next() -> None:
    paths = [b"a.b", b"a/z", b"a", b"a/b/c", b"b", b"a/b"]
    assert sorted(paths, key=walk_key) == [b"a", b"a/b", b"a/b/c", b"a/z", b"a.b", b"b"]


def test_paths_are_taken_apart() -> None:
    assert (parent_of(b"a/b/c"), name_of(b"a/b/c"), join(b"a", b"b"), join(b"", b"b")) == (b"a/b", b"c", b"a/b", b"b")
    assert (parent_of(b"a"), list(above(b"a/b/c")), list(above(b"a"))) == (b"", [b"a/b", b"a"], [])


def test_what_leads_to_many_paths_is_told_once() -> None:
    assert all_above([b"a/b/c", b"a/b/d", b"e", b"a/f/g"]) == {b"a", b"a/b", b"a/f"}
    assert all_above([]) == set()
