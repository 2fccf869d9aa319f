"""Spools: the kept output of one stream of one process, addressed by byte offset.

A spool keeps the range [first, end). Its file is a sparse memfd whose own offset is `end` (see `system.spool_file`), so a
restarted coworkd finds it where the last one was killed. `pumps` move pipes into them.

Rules
- What is dropped is dropped from the front, in whole pages, once an eighth more than the limit is kept; so at least the limit
  stays, if so much came.
- Full means: the limit is kept and the slowest reader has not come further. `block` then leaves the bytes in the pipe,
  which stops the command; `drop_oldest` goes on, and a reader that was overtaken finds itself at `first`.
- What is dropped at the front goes without a word here: whoever reads on finds itself at `first`, and says so (`process_reader`).
- A file that takes no more (a full disk) cuts the spool at `cut_at`, for good: what comes from there on is counted and thrown away,
  so that the command never waits for it. The file then ends before its own offset, which a restarted coworkd sees.
- All spools together keep at most their `SpoolBudget`: past it each that grows is held to an equal part of it, and `FLOOR_BYTES`.
- `lost` says that bytes were dropped which no reader had been given.
- A `HeadSpool` keeps the first bytes instead and counts the rest (`process.run`).

It knows no process, no link and no encoding, and starts no task. One alone fills a spool; all calls are made from trio's
thread. Sources: splice(2), pipe(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import trio

from coworkd.model.process import OnFull
from coworkd.system import spool_file

STREAM_LIMIT_BYTES = 1024 * 1024
PIPE_BYTES = 1024 * 1024
"""A busy pipe is made this large: one wakeup then moves as much."""
FLOOR_BYTES = 64 * 1024
"""So much a stream may keep in any case."""
_SPLICES_PER_TURN = 8


class Follower(Protocol):
    """Someone who reads a spool."""

    @property
    def offset(self) -> int:
        """The next offset wanted: everything before it was taken."""

    def more(self) -> None:
        """Bytes were added, or the stream has ended. Must not block."""


class SpoolBudget:
    """What the spools that share it keep together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.spools = 0

    def part(self) -> int:
        """What one of them may keep, however much it was promised."""
        if self.used_bytes <= self.limit_bytes:
            return self.limit_bytes
        return max(FLOOR_BYTES, self.limit_bytes // max(1, self.spools))


class Spool:
    """The last bytes of a stream. Owns its file until `close`."""

    def __init__(
        self,
        fd: int,
        *,
        limit_bytes: int = STREAM_LIMIT_BYTES,
        on_full: OnFull | None = None,
        first: int = 0,
        budget: SpoolBudget | None = None,
    ) -> None:
        """`fd` is taken over, at whatever offset it is. `on_full` None blocks while there is a follower, and else drops."""
        self._fd = fd
        self._limit = limit_bytes
        self._extra = 0
        self._taken_until = 0
        """Up to here it is taken in any case."""
        self._on_full = on_full
        self._followers: list[Follower] = []
        self._given_before = 0
        """Up to here an earlier coworkd may have given it away."""
        self._delivered = first
        self._room_call: Callable[[], None] | None = None
        self._budget = budget or SpoolBudget(limit_bytes)
        self._null_fd = -1
        self.first = first
        self.end = spool_file.end(fd)
        size = spool_file.size(fd)
        self.cut_at = size if size < self.end else None
        """Where the file ended to take what comes; None while it takes all."""
        self.eof = False
        self.lost = self.cut_at is not None
        self.closed = False
        self._budget.spools += 1
        self._budget.used_bytes += self.kept_bytes

    @classmethod
    def adopt(
        cls,
        fd: int,
        *,
        limit_bytes: int = STREAM_LIMIT_BYTES,
        on_full: OnFull | None = None,
        budget: SpoolBudget | None = None,
    ) -> Spool:
        """A spool over a file that an earlier coworkd filled. Whoever follows it has been given, by that one, what is before his offset."""
        first = min(spool_file.first_kept(fd), spool_file.end(fd))
        spool = cls(fd, limit_bytes=limit_bytes, on_full=on_full, first=first, budget=budget)
        spool._given_before = spool.end
        return spool

    @property
    def total(self) -> int:
        """Bytes that came, kept or not."""
        return self.end

    @property
    def kept_bytes(self) -> int:
        return max(0, self.kept_end - self.first)

    @property
    def kept_end(self) -> int:
        """Behind the last byte that is kept: the end of the stream, but for one that was cut."""
        return self.end if self.cut_at is None else self.cut_at

    def fileno(self) -> int:
        return self._fd

    @property
    def limit_bytes(self) -> int:
        """What it was promised to keep."""
        return self._limit

    @property
    def followed(self) -> bool:
        """Whether somebody reads it."""
        return bool(self._followers)

    @property
    def given(self) -> int:
        """How far anybody has been given it."""
        return self._delivered

    @property
    def blocking(self) -> bool:
        """Whether being full stops the command now."""
        if self._on_full is None:
            return bool(self._followers)
        return self._on_full == "block"

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of everything that comes from now on; one that has all there is makes room by that alone."""
        self._followers.append(follower)
        self._delivered = max(self._delivered, min(follower.offset, self._given_before))
        self._tell_room()

    def unfollow(self, follower: Follower) -> None:
        """The follower has gone; unknown ones are passed over."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._tell_room()

    def room(self) -> int:
        """How many bytes may come now."""
        if self.cut_at is not None or not self.blocking:
            return self._bound()
        return max(0, self._wanted_from() + self._bound() - self.end, self._taken_until - self.end)

    def read(self, offset: int, limit_bytes: int) -> tuple[int, bytes]:
        """Up to `limit_bytes` from `offset`, or from `first` where that is later; and where they begin.

        Behind the last byte of a stream that was cut there is nothing, at its end, once that is known.
        """
        offset = max(offset, self.first)
        if offset < self.kept_end:
            return offset, self._pread(min(limit_bytes, self.kept_end - offset), offset)
        return (self.end if self.eof else offset), b""

    def _pread(self, limit_bytes: int, offset: int) -> bytes:
        return os.pread(self._fd, limit_bytes, offset)

    def delivered(self, offset: int) -> None:
        """Everything before `offset` was given to a follower, which has moved on.

        Whoever waits for room has a turn once half of the spool is free: turns of less cost as much each. No more, for a host that
        acknowledges keeps back half of the smallest spool at most.
        """
        self._delivered = max(self._delivered, offset)
        if self._room_call is not None and self.room() >= self._bound() // 2:
            self._tell_room()

    def fill_from(self, pipe_fd: int) -> int:
        """Take what the pipe has and there is room for, as much as a full one has, and no more in one turn; returns how much that was.

        Sets `eof` at the end of the pipe. Raises `OSError` where the file or the pipe fails: `cut` it then, and try again.
        """
        before = self.total
        for _ in range(_SPLICES_PER_TURN):
            if self.eof or not (room := self.room()) or self.total - before > PIPE_BYTES:
                break
            try:
                taken = spool_file.splice(pipe_fd, self._fd, room) if self.cut_at is None else self._pass_by(pipe_fd)
            except BlockingIOError:
                break
            self.eof = taken == 0
            self._advance(taken)
        if self.eof or self.total > before:
            self._tell_followers()
        return self.total - before

    def took(self, taken: int) -> None:
        """So many bytes were spliced into the file by whoever fills it; 0 is the end of the stream."""
        self.eof = self.eof or taken == 0
        self._advance(taken)
        self._tell_followers()

    def appended(self, count: int) -> None:
        """So many bytes were written to the file already, by another descriptor of the same description."""
        self._advance(count)
        self._tell_followers()

    def cut(self) -> None:
        """The file takes no more: what comes from now on is thrown away. Raises `OSError` (no descriptor left)."""
        if self.cut_at is None:
            self._null_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            self.cut_at = self.end
            self._tell_room()

    def _pass_by(self, pipe_fd: int) -> int:
        if self._null_fd < 0:  # it was cut by the coworkd before us
            self._null_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        taken = spool_file.splice(pipe_fd, self._null_fd, PIPE_BYTES)
        spool_file.skip(self._fd, taken)
        return taken

    def finish(self) -> None:
        """The stream has ended, or nobody will hear more of it."""
        if not self.eof:
            self.eof = True
            self._tell_followers()
            self._tell_room()

    def extend(self, more_bytes: int) -> None:
        """Keep that much more from now on: what a command left in its pipe is taken whatever the readers do, and the budget has."""
        self._extra += more_bytes
        self._taken_until = self.end + more_bytes
        self._tell_room()

    async def wait_room(self) -> None:
        """Return when `room` is not 0 or the stream has ended; no checkpoint where that is so already."""
        while not self.room() and not self.eof:
            there = trio.Event()
            self.when_room(there.set)
            await there.wait()

    def when_room(self, call: Callable[[], None]) -> None:
        """Call once there may be room again, or the stream has ended; whoever fills the spool asks, and asks again."""
        self._room_call = call

    def close(self) -> None:
        """Let the bytes go; who still follows it finds the end of the stream behind a gap. Idempotent."""
        if not self.closed:
            self.closed = self.eof = True
            self._budget.spools -= 1
            self._budget.used_bytes -= self.kept_bytes
            self.first, self.cut_at = self.end, None
            self._tell_followers()
            self._tell_room()
            os.close(self._fd)
            if self._null_fd >= 0:
                os.close(self._null_fd)

    def _advance(self, taken: int) -> None:
        self.end += taken
        if self.cut_at is not None:
            self.lost = self.lost or taken > 0
            return
        self._budget.used_bytes += taken
        bound = self._bound()
        if self.end - self.first >= bound + max(spool_file.PAGE_BYTES, bound // 8):
            self._drop_before(min(self.end - bound, self._wanted_from() if self.blocking else self.end))

    def _drop_before(self, offset: int) -> None:
        """Let whole pages go that end at or before `offset`."""
        keep_from = offset // spool_file.PAGE_BYTES * spool_file.PAGE_BYTES
        if keep_from > self.first:
            start = self.first // spool_file.PAGE_BYTES * spool_file.PAGE_BYTES
            self._punch(start, keep_from - start)
            self._budget.used_bytes -= keep_from - self.first
            self.first = keep_from
            self.lost = self.lost or keep_from > self._delivered

    def _bound(self) -> int:
        """What may be kept now."""
        return min(self._limit, self._budget.part()) + self._extra

    def _wanted_from(self) -> int:
        """What the slowest reader wants next; without one all is wanted."""
        return min((follower.offset for follower in self._followers), default=self.first)

    def _punch(self, start: int, length: int) -> None:
        spool_file.punch_hole(self._fd, start, length)

    def _tell_followers(self) -> None:
        for follower in tuple(self._followers):
            follower.more()

    def _tell_room(self) -> None:
        if self._room_call is not None:
            call, self._room_call = self._room_call, None
            call()


class HeadSpool(Spool):
    """The first `limit_bytes` of a stream; what comes after them is counted and thrown away."""

    def __init__(
        self, fd: int, *, limit_bytes: int = STREAM_LIMIT_BYTES, null_fd: int, budget: SpoolBudget | None = None
    ) -> None:
        """`null_fd` is /dev/null open for writing and stays the caller's."""
        super().__init__(fd, limit_bytes=limit_bytes, on_full="drop_oldest", budget=budget)
        self._nowhere_fd = null_fd
        self._thrown_away = 0

    @property
    def total(self) -> int:
        return self.end + self._thrown_away

    @property
    def followed(self) -> bool:
        """Its caller waits for it; and what comes behind its head costs next to nothing."""
        return True

    @property
    def given(self) -> int:
        return self.total

    def fill_from(self, pipe_fd: int) -> int:
        before = self.total
        for _ in range(_SPLICES_PER_TURN):
            if self.total - before > PIPE_BYTES:
                break
            room = self._bound() - self.end
            try:
                taken = spool_file.splice(
                    pipe_fd, self._fd if room > 0 else self._nowhere_fd, room if room > 0 else PIPE_BYTES
                )
            except BlockingIOError:
                break
            if taken == 0:
                self.eof = True
                break
            if room > 0:
                self.end += taken
                self._budget.used_bytes += taken
            else:
                self._thrown_away += taken
                self.lost = True
        return self.total - before
