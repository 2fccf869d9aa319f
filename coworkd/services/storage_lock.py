"""The lock that keeps a second coworkd off: one file, locked for life, with the pid of who holds it.

An flock(2) ends with its holder, so nothing is left to clean up after kill -9, and a stale pid in the file holds nobody off. The file
stays: unlinking it would let two holders lock two files of one name.
"""

from __future__ import annotations

import fcntl
import os

from coworkd.model.errors import DiskFailed, InvalidState

_PID_BYTES = 32


class StateLock:
    """A held lock; `close` lets go of it."""

    def __init__(self, directory: str, *, what: str) -> None:
        """Take it; `directory` is made where it is missing, `what` says in a refusal what it is about.

        Raises `InvalidState` with who holds it, `DiskFailed` where the file cannot be made.
        """
        path = os.path.join(directory, "lock")
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskFailed(f"{path} cannot be made: {error.strerror}", path=path, errno=error.errno) from error
        try:
            self._take(path, what)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def _take(self, path: str, what: str) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, _PID_BYTES, 0).decode("ascii", "replace").strip()
            pid = int(holder) if holder.isdecimal() else None
            raise InvalidState(
                f"{what} is in use by another coworkd (pid {holder or 'unknown'}): stop it, or choose another directory or disk",
                path=path,
                pid=pid,
            ) from error
        try:
            # Written over in place: a disk that is full has room for it, and no moment shows an empty file.
            os.pwrite(self._fd, f"{os.getpid()}\n".ljust(_PID_BYTES).encode(), 0)
        except OSError:
            return  # a disk that is full or read-only: the lock holds all the same, and only the name of its holder is missing

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
