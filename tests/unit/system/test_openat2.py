from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.system.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)
from tests.unit.system.syscalls import EAGAIN, EXDEV, fake_syscalls

FLAGS = os.O_PATH


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("inside")
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "in").symlink_to("a")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_openat2_opens_what_lies_below(directory: int) -> None:
    fd = openat2(directory, b"a/file", os.O_RDONLY, resolve=RESOLVE_BENEATH)
    assert os.read(fd, 10) == b"inside"
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("path", [b"..", b"a/../../x", b"/etc", b"out/passwd"])
def test_openat2_never_leaves_the_directory(directory: int, path: bytes) -> None:
    with pytest.raises(OSError, match="cross-device") as caught:
        openat2(directory, path, FLAGS, resolve=RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
    assert caught.value.filename == os.fsdecode(path)


@pytest.mark.parametrize("path", [b"in/file", b"out", b"in"])
def test_openat2_follows_no_link(directory: int, path: bytes) -> None:
    with pytest.raises(OSError, match="symbolic") as caught:
        openat2(directory, path, os.O_RDONLY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    assert caught.value.errno == errno.ELOOP


def test_openat2_keeps_dot_dot_inside_a_root(directory: int) -> None:
    os.close(openat2(directory, b"/../../a", FLAGS, resolve=RESOLVE_IN_ROOT))


def test_openat2_follows_no_magic_link() -> None:
    root = os.open("/", FLAGS | os.O_DIRECTORY)
    with pytest.raises(OSError, match="symbolic"):
        openat2(root, b"proc/self/fd/0", FLAGS, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    os.close(root)


def test_openat2_tries_again_after_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch, EAGAIN, EAGAIN, 9)
    assert openat2(3, b"a", os.O_RDONLY, resolve=RESOLVE_BENEATH, mode=0o600) == 9
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_CLOEXEC, 0o600, RESOLVE_BENEATH)
    assert kernel.calls == [(437, (3, b"a", how, 24))] * 3


def test_openat2_gives_up_a_race_it_never_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch, *[EAGAIN] * 100)
    with pytest.raises(BlockingIOError, match="kept changing"):
        openat2(3, b"a", os.O_RDONLY, resolve=RESOLVE_BENEATH)
    assert len(kernel.calls) == 16


def test_openat2_takes_no_second_try_for_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_syscalls(monkeypatch, EXDEV)
    with pytest.raises(OSError, match="cross-device"):
        openat2(3, b"a", os.O_RDONLY, resolve=RESOLVE_BENEATH)
    assert len(kernel.calls) == 1
