"""Directories, files and look-ups below a root that is a plain directory; tests/root/test_launcher.py mounts for real."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.launcher import tree
from coworkd.launcher.tree import Sources, TreeError, TreeSocket
from coworkd.model.launch import TreeBind, TreeCopy, TreeDir, TreeEntry, TreeFile, TreeFileBind, TreeLink


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def apply(root: int, *entries: TreeEntry, sources: Sources | None = None) -> None:
    for entry in entries:
        tree._apply(root, entry, sources or Sources(1001, 1001))


def test_entries_are_made_as_asked(root: int, tmp_path: Path) -> None:
    apply(
        root,
        TreeDir(path=b"/etc", mode=0o711),
        TreeFile(path=b"/etc/hostname", data=b"claude\n", mode=0o640),
        TreeLink(path=b"/etc/mtab", target=b"../proc/self/mounts"),
    )
    assert stat.S_IMODE((tmp_path / "etc").stat().st_mode) == 0o711
    assert (tmp_path / "etc/hostname").read_bytes() == b"claude\n"
    assert stat.S_IMODE((tmp_path / "etc/hostname").stat().st_mode) == 0o640
    assert os.readlink(tmp_path / "etc/mtab") == "../proc/self/mounts"


def test_a_directory_that_is_there_keeps_its_mode(root: int, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    apply(root, TreeDir(path=b"/home", mode=0o777))
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "entry",
    [
        TreeDir(path=b"/home/mnt"),
        TreeDir(path=b"/home/mnt/deep"),
        TreeFile(path=b"/home/mnt/file", data=b"x"),
        TreeLink(path=b"/home/mnt/link", target=b"x"),
    ],
)
def test_a_planted_link_leads_nowhere(root: int, tmp_path: Path, entry: TreeEntry) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mnt").symlink_to(outside)
    with pytest.raises(OSError, match="mnt") as caught:
        apply(root, entry)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert list(outside.iterdir()) == []


def test_a_planted_file_is_never_written_over(root: int, tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        apply(root, TreeFile(path=b"/file", data=b"x"))
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("path", [b"etc", b"", b"/", b"/a/..", b"/.", b"/a/"])
def test_a_destination_is_absolute_and_normal(root: int, path: bytes) -> None:
    with pytest.raises(OSError, match="absolute and normal"):
        apply(root, TreeDir(path=path))


def test_dot_dot_inside_a_destination_stays_below_the_root(root: int, tmp_path: Path) -> None:
    apply(root, TreeDir(path=b"/../../x"))
    assert (tmp_path / "x").is_dir()


def test_a_file_that_does_not_fit_is_an_error(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: 1)
    with pytest.raises(OSError, match="space"):
        apply(root, TreeFile(path=b"/file", data=b"xx"))


def test_sources_copy_small_files_and_leave_out_the_missing(root: int, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"zone")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    sources = Sources(1001, 1001)
    entries = [
        TreeCopy(source=os.fsencode(tmp_path / name), path=b"/" + name.encode()) for name in ("small", "large", "no")
    ]
    sources.take(entries)
    assert sources.files == {b"/small": b"zone"}
    assert sources.missing == [b"/large", b"/no"]
    apply(root, *entries[1:], sources=sources)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "small"]


@pytest.mark.parametrize("name", ["no", "small/below"])
def test_sources_leave_out_an_optional_bind_that_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "small").touch()
    bind = TreeBind(source=os.fsencode(tmp_path / name), path=b"/a", read_only=True, optional=True)
    sources = Sources(1001, 1001)
    sources.take([bind])
    assert sources.missing == [b"/a"]


@pytest.mark.parametrize("optional", [True, False])
def test_sources_follow_no_link_even_to_an_optional_bind(tmp_path: Path, optional: bool) -> None:
    (tmp_path / "link").symlink_to("/etc")
    bind = TreeBind(source=os.fsencode(tmp_path / "link/ssl"), path=b"/a", read_only=True, optional=optional)
    with pytest.raises(TreeError) as caught:
        Sources(1001, 1001).take([bind])
    assert caught.value.errno == errno.ELOOP
    assert caught.value.stage == f"bind {tmp_path}/link/ssl"


def test_sources_bind_no_device(tmp_path: Path) -> None:
    bind = TreeBind(source=b"/dev/null", path=b"/a", read_only=True)
    with pytest.raises(TreeError, match="Not a directory"):
        Sources(1001, 1001).take([bind])


def covered(root: int, **fields: Any) -> str:
    """What a file bind finds to cover."""
    fd = tree._open_covered(root, TreeFileBind(**{"source": b"/x", "path": b"/file", **fields}))
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_a_file_bind_covers_a_file_or_a_socket(root: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert covered(root) == f"{tmp_path}/file"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert covered(root, path=b"/socket", make=True) == f"{tmp_path}/socket"


def test_a_file_bind_makes_what_it_covers_only_if_asked(root: int, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        covered(root)
    assert covered(root, make=True) == f"{tmp_path}/file"
    assert (stat.S_IMODE((tmp_path / "file").stat().st_mode), (tmp_path / "file").read_bytes()) == (0o400, b"")


@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize("path", [b"/link", b"/way/file", b"/directory", b"/fifo"])
def test_a_file_bind_covers_nothing_else_and_follows_no_link(
    root: int, tmp_path: Path, path: bytes, make: bool
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "way").symlink_to("real")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"Too many levels|Not a directory|neither") as caught:
        covered(root, path=path, make=make)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL)


@pytest.mark.parametrize(("source", "number"), [(b"/dev/null", errno.EINVAL), (b"/usr", errno.EINVAL)])
def test_sources_of_a_file_bind_are_files_or_sockets(source: bytes, number: int) -> None:
    with pytest.raises(TreeError) as caught:
        Sources(1001, 1001).take([TreeFileBind(source=source, path=b"/a")])
    assert caught.value.errno == number


def test_sources_leave_out_an_optional_file_that_is_missing(tmp_path: Path) -> None:
    sources = Sources(1001, 1001)
    sources.take([TreeFileBind(source=bytes(tmp_path / "no"), path=b"/a", optional=True)])
    assert sources.missing == [b"/a"]


def test_a_listener_gets_a_name_that_only_its_owner_can_use(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid: list[TreeFileBind] = []
    monkeypatch.setattr(tree, "_apply_mount", lambda root, entry, sources: laid.append(entry))
    before = os.umask(0o027)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        asked = TreeSocket(fd=listener.fileno(), path=b"/tmp/a.sock", uid=os.getuid(), gid=os.getgid(), backlog=5)
        tree.place(root, asked, Sources(1001, 1001))
        made = tmp_path / "listeners" / "a.sock"
        assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
        assert (stat.S_IMODE(made.stat().st_mode), made.is_socket()) == (0o600, True)
        client.connect(f"/proc/self/fd/{root}/listeners/a.sock")
    assert laid == [TreeFileBind(source=b"/listeners/a.sock", path=b"/tmp/a.sock", of_tree=True, make=True)]
    assert os.umask(before) == 0o027


def test_sources_do_not_look_for_what_is_the_trees_own(tmp_path: Path) -> None:
    sources = Sources(1001, 1001)
    sources.take([TreeFileBind(source=bytes(tmp_path / "no"), path=b"/a", of_tree=True)])
    assert (sources.missing, sources.mounts) == ([], {})
