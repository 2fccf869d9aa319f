"""Spools: the kept output of one stream of one process, addressed by byte offset.

A spool keeps the range [first, end). Its file is a sparse memfd whose own offset is `end` (see `system.spool_file`), so a
restarted coworkd finds it where the last one was killed. `pumps` move pipes into them.

Rules
- What is dropped is dropped from the front, in whole pages, once an eighth more than the limit is kept; so at least the limit
  stays, if so much came.
- Full means: the limit is kept and the slowest reader has not come further. `block` then leaves the bytes in the pipe,
  which stops the command; `drop_oldest` goes on, and a reader that was overtaken finds itself at `first`.
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
_SPLICES_PER_TURN = 8


class Follower(Protocol):
    """Someone who reads a spool."""

    @property
    def offset(self) -> int:
        """The next offset wanted: everything before it was taken."""

    def more(self) -> None:
        """Bytes were added, or the stream has ended. Must not block."""


class Spool:
    """The last bytes of a stream. Owns its file until `close`."""

    def __init__(
        self, fd: int, *, limit_bytes: int = STREAM_LIMIT_BYTES, on_full: OnFull | None = None, first: int = 0
    ) -> None:
        """`fd` is taken over, at whatever offset it is. `on_full` None blocks while there is a follower, and else drops."""
        self._fd = fd
        self._limit = limit_bytes
        self._slack = max(spool_file.PAGE_BYTES, limit_bytes // 8)
        self._on_full = on_full
        self._followers: list[Follower] = []
        self._delivered = first
        self._room_call: Callable[[], None] | None = None
        self.first = first
        self.end = spool_file.end(fd)
        self.eof = False
        self.lost = False
        self.closed = False

    @classmethod
    def adopt(cls, fd: int, *, limit_bytes: int = STREAM_LIMIT_BYTES, on_full: OnFull | None = None) -> Spool:
        """A spool over a file that an earlier coworkd filled."""
        first = min(spool_file.first_kept(fd), spool_file.end(fd))
        return cls(fd, limit_bytes=limit_bytes, on_full=on_full, first=first)

    @property
    def total(self) -> int:
        """Bytes that came, kept or not."""
        return self.end

    @property
    def kept_bytes(self) -> int:
        return self.end - self.first

    @property
    def blocking(self) -> bool:
        """Whether being full stops the command now."""
        if self._on_full is None:
            return bool(self._followers)
        return self._on_full == "block"

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of everything that comes from now on."""
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """The follower has gone; unknown ones are passed over."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._tell_room()

    def room(self) -> int:
        """How many bytes may come now."""
        if not self.blocking:
            return self._limit
        low = min((follower.offset for follower in self._followers), default=self.first)
        return max(0, low + self._limit - self.end)

    def read(self, offset: int, limit_bytes: int) -> tuple[int, bytes]:
        """Up to `limit_bytes` from `offset`, or from `first` where that is later; and where they begin."""
        offset = max(offset, self.first)
        data = os.pread(self._fd, min(limit_bytes, self.end - offset), offset) if offset < self.end else b""
        return offset, data

    def delivered(self, offset: int) -> None:
        """Everything before `offset` was given to a follower, which has moved on."""
        self._delivered = max(self._delivered, offset)
        if self._room_call is not None and self.room() >= self._limit // 4:
            self._tell_room()

    def fill_from(self, pipe_fd: int) -> int:
        """Take what the pipe has and there is room for, at most a few splices; returns how much that was.

        Sets `eof` at the end of the pipe. Raises `OSError` where the file or the pipe fails.
        """
        before = self.total
        for _ in range(_SPLICES_PER_TURN):
            if self.eof or not (room := self.room()):
                break
            try:
                taken = spool_file.splice(pipe_fd, self._fd, room)
            except BlockingIOError:
                break
            self.eof = taken == 0
            self._advance(taken)
        if self.eof or self.total > before:
            self._tell_followers()
        return self.total - before

    def append(self, data: bytes) -> None:
        """Add bytes that were read already."""
        spool_file.append(self._fd, data)
        self._advance(len(data))
        self._tell_followers()

    def finish(self) -> None:
        """The stream has ended, or nobody will hear more of it."""
        if not self.eof:
            self.eof = True
            self._tell_followers()
            self._tell_room()

    def extend(self, more_bytes: int) -> None:
        """Keep that much more from now on: what a command left in its pipe is taken whatever the readers do."""
        self._limit += more_bytes
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
        """Let the bytes go. Idempotent."""
        if not self.closed:
            self.closed = True
            self.finish()
            os.close(self._fd)

    def _advance(self, taken: int) -> None:
        self.end += taken
        if self.end - self.first >= self._limit + self._slack:
            keep_from = (self.end - self._limit) // spool_file.PAGE_BYTES * spool_file.PAGE_BYTES
            start = self.first // spool_file.PAGE_BYTES * spool_file.PAGE_BYTES
            spool_file.punch_hole(self._fd, start, keep_from - start)
            self.first = keep_from
            self.lost = self.lost or keep_from > self._delivered

    def _tell_followers(self) -> None:
        for follower in tuple(self._followers):
            follower.more()

    def _tell_room(self) -> None:
        if self._room_call is not None:
            call, self._room_call = self._room_call, None
            call()


class HeadSpool(Spool):
    """The first `limit_bytes` of a stream; what comes after them is counted and thrown away."""

    def __init__(self, fd: int, *, limit_bytes: int = STREAM_LIMIT_BYTES, null_fd: int) -> None:
        """`null_fd` is /dev/null open for writing and stays the caller's."""
        super().__init__(fd, limit_bytes=limit_bytes, on_full="drop_oldest")
        self._null_fd = null_fd
        self._thrown_away = 0

    @property
    def total(self) -> int:
        return self.end + self._thrown_away

    def fill_from(self, pipe_fd: int) -> int:
        before = self.total
        for _ in range(_SPLICES_PER_TURN):
            room = self._limit - self.end
            try:
                taken = spool_file.splice(pipe_fd, self._fd if room else self._null_fd, room or PIPE_BYTES)
            except BlockingIOError:
                break
            if taken == 0:
                self.eof = True
                break
            if room:
                self.end += taken
            else:
                self._thrown_away += taken
                self.lost = True
        return self.total - before
