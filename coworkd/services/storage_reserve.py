"""The reserve: what coworkd holds back for the day the session disk is full, and gives up to write one more record.

Layout: `STATE/reserve/`, 0700: `blocks` (allocated, never written) and empty files `inode-NN`, because a disk is full of inodes as well
as of bytes, and ext4 keeps none of those for anybody.

Rules
- `release` gives up one small step; whoever met ENOSPC calls it and tries again, until it is written or nothing is left. All at once
  would be a present to whoever fills the disk. `refill` takes it back when there is room for several times as much, so that the two
  do not chase each other.
- A reserve that cannot be had is told by `missing`, and is no error: the disk may be full already.

Blocking, idempotent, and safe to call from several threads. Sources: posix_fallocate(3), statvfs(3).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

RESERVE_BYTES = 8 * 1024 * 1024
RESERVE_INODES = 64
STEP_BYTES = 16 * 1024
ROOM = 4
"""How many times the reserve must be free before it is taken back."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCKS = "blocks"
_T = TypeVar("_T")


class Reserve:
    """The reserve of one state directory."""

    def __init__(self, state_dir: str, *, size_bytes: int = RESERVE_BYTES, inodes: int = RESERVE_INODES) -> None:
        self._directory = os.path.join(state_dir, "reserve")
        self._size_bytes = size_bytes
        self._names = [_BLOCKS, *(f"inode-{number:02}" for number in range(inodes))]
        self._lock = threading.Lock()
        self.missing: str | None = "it was not taken yet"
        """Why there is no whole reserve; None while there is."""

    def release(self) -> bool:
        """Give up a step of it: some blocks and an inode; whether there was anything to give. Raises nothing: a disk that fails
        gives nothing.
        """
        with self._lock:
            given = self._shrink()
            for name in self._names[1:]:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._directory, name))
                    given = True
                    break
            if given:
                self.missing = "some of it was given up, because the disk is full"
            return given

    def _shrink(self) -> bool:
        path = os.path.join(self._directory, _BLOCKS)
        with contextlib.suppress(OSError):
            held = os.stat(path, follow_symlinks=False).st_size
            if held:
                os.truncate(path, max(held - STEP_BYTES, 0))
                return True
        return False

    def refill(self) -> bool:
        """Take it, or take it back, where there is room for it; whether it is whole now. Raises nothing; see `missing`."""
        with self._lock:
            if self.missing is None:
                return True
            try:
                os.makedirs(self._directory, 0o700, exist_ok=True)
                if not self._is_whole() and not self._has_room():
                    self.missing = "there is no room for it"
                    return False
                for name in self._names:
                    self._take(name)
                self._sync()
            except OSError as error:
                self.missing = f"it cannot be taken: {error.strerror}"
                return False
            self.missing = None
            return True

    def retry(self, call: Callable[[], _T]) -> _T:
        """What `call` gives, tried again with ever less of the reserve while the disk is full. Raises what `call` raises."""
        while True:
            try:
                return call()
            except OSError as error:
                if error.errno not in FULL or not self.release():
                    raise

    def _take(self, name: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(os.path.join(self._directory, name), flags, 0o600)
        try:
            if name == _BLOCKS and self._size_bytes:
                os.posix_fallocate(fd, 0, self._size_bytes)
        finally:
            os.close(fd)

    def _is_whole(self) -> bool:
        try:
            blocks = os.stat(os.path.join(self._directory, _BLOCKS)).st_blocks * 512
        except FileNotFoundError:
            return False
        return blocks >= self._size_bytes and len(os.listdir(self._directory)) >= len(self._names)

    def _has_room(self) -> bool:
        found = os.statvfs(self._directory)
        # A file system without a table of inodes says that it has none at all.
        inodes = not found.f_files or found.f_favail >= ROOM * len(self._names)
        return inodes and found.f_bavail * found.f_frsize >= ROOM * self._size_bytes

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
