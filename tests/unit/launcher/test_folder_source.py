"""The look-up and the probe of a source on real files, and what becomes of each mode; mounts are tests/root/test_launcher_folders.py's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from coworkd.launcher.errand import ErrandError
from coworkd.launcher.folder_source import View, look_up, plan_view, probe
from coworkd.model.launch import MountFolder
from coworkd.model.policy import FolderMode


def request(root: Path, source: bytes, mode: FolderMode = "ro", **fields: Any) -> MountFolder:
    return MountFolder(id=0, session="bob", name="work", root=bytes(root), source=source, mode=mode, **fields)


def refusal(root: Path, source: bytes) -> tuple[int | None, str]:
    with pytest.raises(ErrandError) as caught:
        look_up(request(root, source))
    return caught.value.report.errno, caught.value.report.message


def test_a_directory_and_the_root_itself_are_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for source, wanted in ((b"a/b", tmp_path / "a" / "b"), (b".", tmp_path)):
        found, status = look_up(request(tmp_path, source))
        assert (status.st_ino, stat.S_ISDIR(status.st_mode)) == (wanted.stat().st_ino, True)
        os.close(found)


def test_a_link_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "back").symlink_to("in")
    for source in (b"out", b"out/ssl", b"back"):
        number, message = refusal(tmp_path, source)
        assert (number, "a symbolic link" in message) == (errno.ELOOP, True)


def test_a_way_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert refusal(tmp_path / "in", b"..") == (errno.EXDEV, "..: it leads out of where folders may be")
    assert refusal(tmp_path / "in", b"/etc")[0] == errno.EXDEV


def test_what_is_no_directory_and_no_plain_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path, b"fifo") == (errno.EINVAL, "fifo is a fifo; a folder is a directory or a plain file")


def test_what_is_missing_is_told_with_its_name(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"a/b") == (errno.ENOENT, "a/b: No such file or directory")
    assert refusal(tmp_path / "gone", b"a")[1] == f"{tmp_path}/gone: No such file or directory"


def test_a_probe_looks_at_directories_and_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for source in (b"file", b"empty", b"."):
        asked = request(tmp_path, source)
        found, status = look_up(asked)
        probe(found, status, asked)
        os.close(found)


def test_a_probe_tells_what_a_share_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path, b".")
    found, status = look_up(asked)
    for number in (errno.ESTALE, errno.EIO):
        monkeypatch.setattr(os, "statvfs", refuse(number))
        with pytest.raises(ErrandError) as caught:
            probe(found, status, asked)
        assert caught.value.report.errno == number
    os.close(found)


def test_what_root_may_not_read_has_answered_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(tmp_path, b".")
    found, status = look_up(asked)
    monkeypatch.setattr(os, "scandir", refuse(errno.EACCES))
    probe(found, status, asked)
    os.close(found)


def refuse(number: int) -> Any:
    def call(path: object) -> object:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("mode", "bits", "view"),
    [
        ("ro", 0o40755, View(read_only=True, guarded="never")),
        ("ro", 0o40700, View(read_only=True, guarded="unmapped")),
        ("rw", 0o40755, View(read_only=False, guarded="always", deletes="ask")),
        ("rwd", 0o40755, View(read_only=False, guarded="unmapped", deletes="allow")),
        ("staged", 0o40755, View(read_only=True, guarded="unmapped")),
        ("ro", 0o100600, View(read_only=True, guarded="never")),
        ("rw", 0o100600, View(read_only=False, guarded="never")),
    ],
)
def test_each_mode_has_its_view(tmp_path: Path, mode: FolderMode, bits: int, view: View) -> None:
    status = os.stat_result((bits, *[0] * 9))
    assert plan_view(request(tmp_path, b".", mode, deletes="ask"), status) == view


def test_a_single_file_is_not_staged(tmp_path: Path) -> None:
    with pytest.raises(ErrandError, match="a single file cannot be staged"):
        plan_view(request(tmp_path, b".", "staged"), os.stat_result((0o100600, *[0] * 9)))
