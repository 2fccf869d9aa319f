"""A spool whose file is on the session disk, and what fills it: nothing of it waits for the disk on the loop.

Rules
- Writing and making holes happen in a thread, one turn at a time; at most `THREADS` streams wait for the disk at once, so that a disk
  that hangs takes nobody else's threads.
- Reading takes what the page cache has (RWF_NOWAIT). What it has not is fetched in a thread, and the reader is told when it is there.
- The disk's last bytes are not for spools: with nothing free for others than root the spool is cut, as by a disk that is full.
- Nothing is written before the command's exec is known and the launcher holds the file: until then its stderr is bubblewrap's, and
  what a restarted coworkd would not find must not be in it.

Rules of spools and pumps are those of `spools` and `pumps`. Sources: preadv2(2), splice(2), fallocate(2).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable

import trio

from coworkd.model.process import OnFull
from coworkd.services.spool_files import free_bytes
from coworkd.services.spools import PIPE_BYTES, STREAM_LIMIT_BYTES, Spool
from coworkd.system import spool_file

THREADS = 4
_NOT_SO = (errno.EOPNOTSUPP, errno.EINVAL)
_log = logging.getLogger("coworkd.process")


class DiskSpool(Spool):
    """The last bytes of a stream, on the session disk. Owns its file until `close`."""

    def __init__(
        self,
        fd: int,
        *,
        limit_bytes: int = STREAM_LIMIT_BYTES,
        on_full: OnFull | None = None,
        first: int = 0,
        later: Callable[..., None],
    ) -> None:
        """As `Spool`; `later` starts a task."""
        super().__init__(fd, limit_bytes=limit_bytes, on_full=on_full, first=first)
        self.holes: list[tuple[int, int]] = []
        """(start, length) of what was let go and is still on the disk."""
        self._later = later
        self._fetching = False

    def _punch(self, start: int, length: int) -> None:
        self.holes.append((start, length))

    def _pread(self, limit_bytes: int, offset: int) -> bytes:
        buffer = bytearray(limit_bytes)
        try:
            count = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            self._fetch(limit_bytes, offset)
            return b""
        except OSError as error:
            if error.errno not in _NOT_SO:
                raise
            return super()._pread(limit_bytes, offset)
        return bytes(buffer[:count])

    def _fetch(self, limit_bytes: int, offset: int) -> None:
        if not self._fetching:
            self._fetching = True
            self._later(self._fetch_in_thread, os.dup(self._fd), limit_bytes, offset)

    async def _fetch_in_thread(self, fd: int, limit_bytes: int, offset: int) -> None:
        def fetch() -> None:
            try:
                os.pread(fd, limit_bytes, offset)
            finally:
                os.close(fd)

        try:
            await trio.to_thread.run_sync(fetch, abandon_on_cancel=True, limiter=_threads())
        except OSError as error:
            _log.error("kept output cannot be read from the session disk, it is dropped: %s", error)
            self._drop_before(self.kept_end)
        finally:
            self._fetching = False
        self._tell_followers()


class DiskPump:
    """Moves a pipe into a `DiskSpool` until the pipe ends. Owns the pipe's read end, which `run` closes."""

    def __init__(
        self, pipe_fd: int, spool: DiskSpool, *, ended: Callable[[], None], failed: Callable[[OSError], None]
    ) -> None:
        """`ended` and `failed` as those of `pumps.Pump`."""
        self.spool = spool
        self._pipe_fd = pipe_fd
        self._file_fd = os.dup(spool._fd)
        self._ended = ended
        self._failed = failed
        self._open = True

    async def run(self, may_begin: Callable[[], Awaitable[None]]) -> None:
        """Pump from when `may_begin` returns until the end or `close`."""
        in_thread = False
        try:
            await may_begin()
            while self._open and not self.spool.eof:
                await self.spool.wait_room()
                if self.spool.eof:
                    break
                await trio.lowlevel.wait_readable(self._pipe_fd)
                in_thread = True
                await self._turn()
                in_thread = False
        except trio.ClosedResourceError:
            pass
        finally:
            self._finish(in_thread=in_thread)

    def take(self) -> None:
        """Nothing is taken at once: the turn that is due comes."""

    def pipe_bytes(self) -> int:
        """How much may still lie in the pipe."""
        return spool_file.pipe_bytes(self._pipe_fd) if self._open else 0

    def close(self) -> None:
        """Take no more; `run` returns. Idempotent."""
        if self._open:
            self._open = False
            trio.lowlevel.notify_closing(self._pipe_fd)
            self.spool.finish()

    def _finish(self, *, in_thread: bool) -> None:
        ended = self._open
        self.close()
        if not in_thread:  # else a thread that hangs on the disk still has them: they go with coworkd
            os.close(self._pipe_fd)
            os.close(self._file_fd)
        if ended:
            self._ended()

    async def _turn(self) -> None:
        if self.spool.cut_at is not None:
            self._throw_away()
            return
        holes, self.spool.holes = self.spool.holes, []
        room = min(self.spool.room(), PIPE_BYTES)
        try:
            taken = await trio.to_thread.run_sync(self._move, holes, room, abandon_on_cancel=True, limiter=_threads())
        except BlockingIOError:
            return
        except OSError as error:
            if not self.spool.closed:
                self.spool.cut()
                self._failed(error)
            return
        if not self.spool.closed:  # else it went meanwhile, with what came
            self.spool.took(taken)

    def _move(self, holes: list[tuple[int, int]], room: int) -> int:
        """In a thread: touches nothing but descriptors."""
        for start, length in holes:
            spool_file.punch_hole(self._file_fd, start, length)
        if free_bytes(self._file_fd) < PIPE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return spool_file.splice(self._pipe_fd, self._file_fd, room)

    def _throw_away(self) -> None:
        try:
            self.spool.fill_from(self._pipe_fd)
        except OSError as error:
            _log.error("what a command puts out cannot be thrown away either, its output ends here: %s", error)
            self.spool.finish()


_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("spools_disk")


def _threads() -> trio.CapacityLimiter:
    """Those of this run of the loop."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
        return limiter
