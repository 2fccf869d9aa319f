"""Stdin: bytes for a command, taken at their offset and acknowledged only once the kernel has them.

Rules
- The pipe is the buffer (64 KiB, 256 KiB once writes are larger): what was acknowledged is in it and outlives coworkd, and so does the
  tally of how much that is. Where coworkd is killed within one write(2), the next one says that it does not know, to the first write that
  tells an offset: most likely it is that one again, and it may be in the pipe. The next tells where input goes on; nothing is guessed.
- A write waits for room at most `PATIENCE_S`, then answers with what was taken; only that call waits, nobody else.
- Writes are taken in the order of their calls. Bytes before the offset wanted are known and dropped; bytes behind it
  are refused. Of several hosts that write at one offset one has it: the bytes of the others are not what was taken, which is told.
  What is appended has no offset: it follows whatever was taken before, from whomever.
- A command that closed its stdin, or ended, is told with the next write as `InvalidState`.

Sources: pipe(7), write(2), ioctl_tty(2).
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from typing import Protocol

import trio

from coworkd.model.errors import InvalidState, OutOfRange, Unavailable
from coworkd.system import spool_file

PATIENCE_S = 1.0
RECENT_WRITES = 64
_USUAL_BYTES = 64 * 1024
_LARGE_BYTES = 256 * 1024


class Sink(Protocol):
    """Where a command's input goes."""

    async def write_some(self, data: memoryview, /) -> int:
        """Wait for room and write; returns how much was taken. Cancelled means: nothing was.

        Raises `BrokenPipeError` when the command has closed its end, `trio.ClosedResourceError` after `close`.
        """

    def close(self) -> None:
        """Close our end; idempotent."""


class Tally:
    """How much went into a command, in an empty memfd that the launcher holds as well: its offset says how much was taken, its size how
    much may have been. Owns it until `close`.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        taken = spool_file.end(fd)
        self.taken = taken if spool_file.size(fd) == taken else None
        """None where a coworkd was killed while it wrote."""
        self._count = taken

    def begin(self, count: int) -> None:
        """So much is about to be written."""
        os.ftruncate(self._fd, self._count + count)

    def end(self, count: int) -> None:
        """So much of it was."""
        spool_file.skip(self._fd, count)
        self._count += count
        os.ftruncate(self._fd, self._count)

    def close(self) -> None:
        os.close(self._fd)


class PipeSink:
    """The write end of a pipe. Owns it, and the tally, until `close`."""

    def __init__(self, fd: int, tally: Tally) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._tally = tally
        self._open = True
        self._large = False

    async def write_some(self, data: memoryview, /) -> int:
        if len(data) > _USUAL_BYTES and not self._large:
            self._enlarge()
        while self._open:
            taken = 0
            self._tally.begin(len(data))
            try:
                taken = os.write(self._fd, data)
            except BlockingIOError:
                pass
            finally:
                self._tally.end(taken)
            if taken:
                return taken
            await trio.lowlevel.wait_writable(self._fd)
        raise trio.ClosedResourceError("stdin was closed here")

    def close(self) -> None:
        if self._open:
            self._open = False
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._tally.close()

    def _enlarge(self) -> None:
        self._large = True
        try:
            spool_file.set_pipe_bytes(self._fd, _LARGE_BYTES)
        except PermissionError:
            return  # past the uid's share of pipe pages: the pipe stays as it is


class ClosedSink:
    """A pipe that was closed by the coworkd before us. Owns the tally until `close`."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    async def write_some(self, data: memoryview, /) -> int:
        raise trio.ClosedResourceError("stdin was closed here")

    def close(self) -> None:
        self._tally.close()


class Stdin:
    """The input of one command. Owns its sink until `close`."""

    def __init__(self, process: str, sink: Sink, *, offset: int | None = 0, doubtful: bool = False) -> None:
        """`offset` None: how much was taken before is not known, the first write tells it. `doubtful`: since a coworkd was killed while it
        wrote, of which somebody has to be told first."""
        self._process = process
        self._doubtful = doubtful
        self._sink = sink
        self._turn = trio.Lock()
        self._closed_by: str | None = None
        self.wanted = offset
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=RECENT_WRITES)
        """(offset, how many bytes, their CRC-32) of what was taken last, for knowing a repetition from somebody else's write."""
        self._taken = 0
        """Since this object was made."""

    @property
    def open(self) -> bool:
        return self._closed_by is None

    async def write(self, offset: int, data: bytes) -> int:
        """Take what fits of `data`, which begins at `offset`; returns the next offset wanted.

        Raises `OutOfRange` for an offset behind the one wanted, and for one where other bytes were taken; `InvalidState` once stdin
        is closed by either side; `Unavailable` once where a coworkd was killed within a write, that is most likely this one.
        Cancellation: what was taken stays taken, and `wanted` counts it.
        """
        answer = offset if data else self.wanted or 0  # where the turn does not come, nothing of these was taken
        with trio.move_on_after(PATIENCE_S):
            async with self._turn:
                fresh = self._fresh(offset, data)
                try:
                    await self._write_all(fresh)
                finally:
                    answer = self._remember(offset, data)
        return answer

    async def append(self, data: bytes) -> int:
        """Take what fits of `data` behind all that was taken; returns how much. Raises and is cancelled as `write`."""
        taken = 0
        with trio.move_on_after(PATIENCE_S):
            async with self._turn:
                self._refuse_closed()
                before = self._taken
                try:
                    await self._write_all(memoryview(data))
                finally:
                    taken = self._taken - before
        return taken

    async def feed(self, data: bytes) -> None:
        """Write all of `data`, however long it takes. Returns early where the command closes its stdin."""
        try:
            async with self._turn:
                await self._write_all(self._fresh(0, data))
        except InvalidState:
            return

    def check_close(self, offset: int | None) -> None:
        """Raise `OutOfRange` unless exactly `offset` bytes were taken; None is always right."""
        if offset is not None and self.wanted is not None and offset != self.wanted:
            raise OutOfRange(
                f"stdin of process {self._process} has taken {self.wanted} bytes, not {offset}: write the rest first",
                process=self._process,
                offset=self.wanted,
            )

    def close(self, by: str = "the caller") -> None:
        """Close our end; the command reads an end of file once every copy is closed. Idempotent."""
        if self._closed_by is None:
            self._closed_by = by
            self._sink.close()

    def _remember(self, offset: int, data: bytes) -> int:
        """What of a write was taken; returns the next offset wanted."""
        wanted = self.wanted or 0
        count = min(len(data), wanted - offset)
        if count > 0:
            self._recent.append((offset, count, zlib.crc32(memoryview(data)[:count])))
        return wanted

    def _refuse_other(self, offset: int, data: bytes) -> None:
        """Raise where `data` is not what was taken at `offset`, or where that is so long ago that nobody knows."""
        forgotten = len(self._recent) == RECENT_WRITES and offset < self._recent[0][0]
        if forgotten and data:
            raise self._not_yours(offset)
        for at, count, checksum in reversed(self._recent):
            if at == offset and count <= len(data):
                if zlib.crc32(memoryview(data)[:count]) != checksum:
                    raise self._not_yours(offset)
                return

    def _not_yours(self, offset: int) -> OutOfRange:
        return OutOfRange(
            f"stdin of process {self._process} has taken other bytes at offset {offset}, of another writer; it wants offset"
            f" {self.wanted} next",
            process=self._process,
            offset=self.wanted,
        )

    def _fresh(self, offset: int, data: bytes) -> memoryview:
        """What of `data` was not taken yet."""
        self._refuse_closed()
        if self.wanted is None:
            if not data:
                raise InvalidState(
                    f"how much stdin process {self._process} took before coworkd was restarted is not known: write on"
                    " behind what was acknowledged",
                    process=self._process,
                )
            self._refuse_doubtful(offset)
            self.wanted = offset
        if offset > self.wanted:
            raise OutOfRange(
                f"stdin of process {self._process} wants offset {self.wanted} next, not {offset}",
                process=self._process,
                offset=self.wanted,
            )
        self._refuse_other(offset, data)
        return memoryview(data)[self.wanted - offset :]

    def _refuse_doubtful(self, offset: int) -> None:
        if self._doubtful:
            self._doubtful = False
            raise Unavailable(
                f"coworkd was killed while it wrote to stdin of process {self._process}: whether the bytes at offset {offset} are in it"
                " is not known, and they are not written a second time; look at what the command makes of it, then write on",
                process=self._process,
                stage="restarted",
            )

    async def _write_all(self, view: memoryview) -> None:
        while view:
            try:
                taken = await self._sink.write_some(view)
            except (BrokenPipeError, trio.ClosedResourceError):
                # Closed here it is known by whom; else a terminal has come to its end, and closed itself.
                self.close(by="the command")
                self._refuse_closed()
                raise
            self._taken += taken
            if self.wanted is not None:
                self.wanted += taken
            view = view[taken:]

    def _refuse_closed(self) -> None:
        if self._closed_by is not None:
            raise InvalidState(
                f"stdin of process {self._process} was closed by {self._closed_by} after {self.wanted} bytes",
                process=self._process,
                offset=self.wanted,
            )
