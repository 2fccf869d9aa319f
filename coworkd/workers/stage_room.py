"""The directory of a stage: made, opened, emptied, found again after a crash. Layout and rules: `model.stage`.

File `about`: JSON `{"format": 1, "id": hex, "began_ns": int}`, replaced by rename. File `intent`: 64 KiB that are there from the start, so
that a commit can say what it is about to do on a disk that is full by then: crc32 (`<I`), length (`<I`), then either `*` (any directory
of the source) or the directories, each with its length (`<H`). All zero: nothing is under way.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import msgspec
from msgspec import Struct

from coworkd.model.errors import UNDECODABLE
from coworkd.model.stage import StagePlace
from coworkd.system.beneath import DIRECTORY, open_beneath
from coworkd.workers.stage_baseline import Baseline, Was
from coworkd.workers.stage_entries import name_of, parent_of
from coworkd.workers.stage_since import Since
from coworkd.workers.stage_tree import Tree

INTENT_BYTES = 64 * 1024
OPAQUE = "overlay.opaque"
ORIGIN = "overlay.origin"
_NO_ATTRIBUTE = frozenset((errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM))
_REALTIME_COARSE = 5
"""CLOCK_REALTIME_COARSE of clock_gettime(2), which Python does not name."""
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<H")
_ANYWHERE = b"*"


class About(Struct, frozen=True, kw_only=True):
    """What `about` holds."""

    format: int
    id: str
    began_ns: int


def make_stage(place: StagePlace, *, uid: int, gid: int, now: Callable[[], int]) -> bool:
    """Make what is missing of the stage; whether it holds no changes, and so begins now. Raises `OSError`.

    `upper` becomes the folder's own top as the session sees it: with the source's mode, and the session's.
    """
    os.makedirs(place.stage, mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        stage = os.open(place.stage, DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, stage)
        if not _is_there(stage, "upper"):
            source = open_source(place)
            stack.callback(os.close, source)
            _make_upper(stage, mode=os.fstat(source).st_mode & 0o777, uid=uid, gid=gid)
        if not _is_there(stage, "work"):
            os.mkdir("work", 0o700, dir_fd=stage)
        if not _is_there(stage, "intent"):
            _replace(stage, "intent", bytes(INTENT_BYTES))
        fresh = not _holds(stage, "upper")
        about = _read_about(stage)
        if fresh:
            for name in os.listdir(stage):
                if name == "since" or name.startswith("baseline"):
                    os.unlink(name, dir_fd=stage)
        if fresh or about is None:
            # Where changes are held back and nobody knows since when, whatever the baseline does not know is in conflict.
            began_ns = now() if fresh else 0
            about = About(format=1, id=about.id if about else secrets.token_hex(8), began_ns=began_ns)
            _replace(stage, "about", msgspec.json.encode(about))
        os.fsync(stage)
    return fresh


def wait_for_tick() -> int:
    """The time in ns such that what is changed from now on has a later ctime, and what was changed before an earlier one or this.

    Timestamps of files come from the kernel's coarse clock, which lags up to two ticks behind (inode(7)), or from the fine one (since
    Linux 6.13): so it waits until the coarse one has passed this moment.
    """
    now = time.time_ns()
    while time.clock_gettime_ns(_REALTIME_COARSE) <= now:
        time.sleep(0.0005)
    return now


def open_source(place: StagePlace) -> int:
    """The source's directory; no symbolic link below its root is followed. The caller closes it."""
    root = os.open(place.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(root, b"" if place.source == b"." else place.source, DIRECTORY)
    finally:
        os.close(root)


def is_made(stage: bytes) -> bool:
    """Whether there is a stage that an overlay may have been laid over. Raises `OSError`."""
    try:
        os.stat(os.path.join(stage, b"about"))
    except FileNotFoundError:
        return False
    return True


def has_intent(stage: bytes) -> bool:
    """Whether a commit may have been interrupted. Raises `OSError`."""
    with open(os.path.join(stage, b"intent"), "rb") as file:
        return any(file.read(_HEAD.size))


class Stage:
    """An open stage: its changes (`upper`), its `source`, and what that was. Use it as a context manager.

    Raises `OSError` where the stage or the source cannot be reached, `ValueError` where `about` is none of ours.
    """

    def __init__(self, place: StagePlace, *, xattr_prefix: str = "trusted.") -> None:
        """`xattr_prefix` is overlayfs's own; with `user.` it is that of a mount with `userxattr`."""
        self._opaque = xattr_prefix + OPAQUE
        self._origin = xattr_prefix + ORIGIN
        with ExitStack() as stack:
            self.fd = os.open(place.stage, DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, self.fd)
            about = _read_about(self.fd)
            if about is None:
                raise ValueError("the stage has no 'about' of ours")
            self.about = about
            self.upper = stack.enter_context(Tree(open_beneath(self.fd, b"upper", DIRECTORY)))
            self.source = stack.enter_context(Tree(open_source(place)))
            self.baseline = Baseline.open(self.fd)
            stack.callback(self.baseline.close)
            self.since = Since(self.fd)
            stack.callback(self.since.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def was(self, path: bytes) -> Was:
        """What the source's entry was when the session saw it last."""
        return self.since.find(path, self.baseline)

    def is_opaque(self, path: bytes) -> bool:
        """Whether the changed directory `path` hides all that the source has there."""
        try:
            return os.getxattr(self.upper.directory(path), self._opaque) in (b"y", b"x")
        except OSError:  # there is none, or it is not there any more
            return False

    def make_opaque(self, path: bytes) -> None:
        """Raises `OSError`."""
        os.setxattr(self.upper.directory(path), self._opaque, b"y")

    def forget_opaque(self, path: bytes) -> None:
        """Raises `OSError`."""
        os.removexattr(self.upper.directory(path), self._opaque)

    def forget_origin(self, path: bytes) -> None:
        """Have overlayfs not know any more which entry of the source the changed one `path` was copied from. Raises `OSError`."""
        place = b"/proc/self/fd/%d/%s" % (self.upper.directory(parent_of(path)), name_of(path))
        try:
            os.removexattr(place, self._origin, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTE:
                raise

    def write_intent(self, directories: Iterable[bytes]) -> None:
        """Say, durably, in which directories of the source unfinished files may be left. Raises `OSError`."""
        paths = list(directories)
        told = _ANYWHERE
        if sum(_LENGTH.size + len(path) for path in paths) <= INTENT_BYTES - _HEAD.size:
            told = b"".join(_LENGTH.pack(len(path)) + path for path in paths)
        self._put_intent(_HEAD.pack(zlib.crc32(told), len(told)) + told)

    def clear_intent(self) -> None:
        self._put_intent(bytes(_HEAD.size))

    def read_intent(self) -> tuple[bytes, ...] | None:
        """The directories where unfinished files may be; None for any."""
        fd = os.open("intent", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            data = os.pread(fd, INTENT_BYTES, 0)
        finally:
            os.close(fd)
        if len(data) < _HEAD.size or data[: _HEAD.size] == bytes(_HEAD.size):
            return ()
        crc, length = _HEAD.unpack_from(data)
        told = data[_HEAD.size : _HEAD.size + length]
        return _parse_intent(told) if zlib.crc32(told) == crc else None

    def _put_intent(self, data: bytes) -> None:
        # Written over in place: no block is allocated, so that it can be done on a full disk.
        fd = os.open("intent", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            os.pwrite(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)


def _parse_intent(told: bytes) -> tuple[bytes, ...] | None:
    if told == _ANYWHERE:
        return None
    found = []
    place = 0
    while place + _LENGTH.size <= len(told):
        (length,) = _LENGTH.unpack_from(told, place)
        place += _LENGTH.size
        found.append(told[place : place + length])
        place += length
    return tuple(found)


def _read_about(stage: int) -> About | None:
    try:
        fd = os.open("about", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage)
    except FileNotFoundError:
        return None
    try:
        about = msgspec.json.decode(os.pread(fd, 4096, 0), type=About)
    except UNDECODABLE:
        return None
    finally:
        os.close(fd)
    return about if about.format == 1 else None


def _make_upper(stage: int, *, mode: int, uid: int, gid: int) -> None:
    if not _is_there(stage, "upper.new"):
        os.mkdir("upper.new", 0o700, dir_fd=stage)
    os.chown("upper.new", uid, gid, dir_fd=stage, follow_symlinks=False)
    os.chmod("upper.new", mode, dir_fd=stage)
    os.rename("upper.new", "upper", src_dir_fd=stage, dst_dir_fd=stage)


def _is_there(stage: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=stage, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _holds(stage: int, name: str) -> bool:
    """Whether there is anything in the directory."""
    fd = os.open(name, DIRECTORY | os.O_CLOEXEC, dir_fd=stage)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is not None
    finally:
        os.close(fd)


def _replace(stage: int, name: str, data: bytes) -> None:
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=stage)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(f"{name}.new", name, src_dir_fd=stage, dst_dir_fd=stage)
