"""A started or attached command, as a blocking handle.

    with client.start("work", ["make", "-j4"], stdin=True) as process:
        process.write_stdin(b"all\\n")
        process.close_stdin()
        for piece in process:
            sys.stdout.buffer.write(piece.data)
        print(process.wait().exit)

Rules
- Iteration gives each byte of each attached stream once and in order, and ends behind the exit. Bytes the guest had to
  drop raise `OutOfRange`; iterate again to go on behind them.
- Leaving the `with` ends a command that still runs (its whole tree, at once) and forgets it. `detach` before that and it
  runs on.
- Output is held here up to `inbox.BOUND_BYTES`: then the handle detaches by itself, and attaches again when it was read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from coworkd.client.collect import COLLECT_LIMIT_BYTES, Collected, Collector
from coworkd.client.inbox import Inbox, Output
from coworkd.client.stdin import RETRY_FIRST_S, check_unread, chunk_at, next_pause_s
from coworkd.model.calls import ProcessStarted
from coworkd.model.errors import CoworkError, InvalidState, NotFound, OutOfRange
from coworkd.model.process import ExitRecord

if TYPE_CHECKING:
    from coworkd.client.sync import Client

END_TIMEOUT_S = 10.0


class Process:
    """One command. `id` names it on every link; `pid` is the command's in the guest; `narrowed` what policy cut."""

    def __init__(self, client: Client, started: ProcessStarted, inbox: Inbox | None) -> None:
        self.id = started.process
        self.pid = started.pid
        self.started_at = started.started_at
        self.narrowed = started.narrowed
        self._client = client
        self._inbox = inbox
        self._stdin_offset = 0
        self._released = False

    # -- output

    def read(self, *, timeout_s: float | None = None) -> Output | None:
        """The next piece of output; None behind the last one, or when `timeout_s` ran out (then `finished` is false).

        Raises `OutOfRange` (a gap), `InvalidState` (not attached), `Unavailable` (the link is gone).
        """
        return self._client.next_output(self._attached(), timeout_s)

    def __iter__(self) -> Iterator[Output]:
        while (piece := self.read()) is not None:
            yield piece

    @property
    def finished(self) -> bool:
        """The exit is known and all output was read."""
        return self._inbox is not None and self._inbox.finished

    def offsets(self) -> dict[str, int]:
        """Stream → the next offset not received yet, of those that have not ended: where `Client.attach` goes on."""
        return dict(self._attached().wanted)

    # -- stdin

    def write_some(self, data: bytes) -> int:
        """Offer `data` once; how many of its first bytes were taken, maybe none."""
        offered = chunk_at(data, 0)
        answer = self._client.process_write_stdin(process=self.id, offset=self._stdin_offset, data=offered)
        count = answer.offset - self._stdin_offset
        self._stdin_offset = answer.offset
        return count

    def write_stdin(self, data: bytes) -> None:
        """Write all of `data`, waiting while the command does not read.

        A command may in turn wait for its output to be read. Where no other thread reads it, this raises `LimitExceeded`
        (`stage` `unread_output`) once much output waits here; `communicate` reads and writes by turns.
        """
        position, pause_s = 0, RETRY_FIRST_S
        while position < len(data):
            taken = self.write_some(chunk_at(data, position))
            position += taken
            if taken:
                pause_s = RETRY_FIRST_S
                continue
            check_unread(self._inbox, position)
            time.sleep(pause_s)
            pause_s = next_pause_s(pause_s)

    def append_some(self, data: bytes) -> int:
        """Offer `data` once, behind whatever was taken, from whatever link: for a terminal that several type at. How many of its first
        bytes were taken, maybe none.
        """
        return self._client.process_write_stdin(process=self.id, data=chunk_at(data, 0)).taken or 0

    def resume_stdin(self) -> int:
        """Ask how much of stdin was taken so far, from whatever link, and go on behind it; returns that offset."""
        self._stdin_offset = (self._client.process_write_stdin(process=self.id, offset=0, data=b"")).offset
        return self._stdin_offset

    def close_stdin(self) -> None:
        """No more input: the command reads end of file after what was taken."""
        self._client.process_close_stdin(process=self.id, offset=self._stdin_offset)

    def communicate(self, data: bytes = b"", *, limit_bytes: int = COLLECT_LIMIT_BYTES) -> Collected:
        """Write `data`, close stdin, and read to the end, by turns. For a process started with `stdin=True`.

        What the command does not read of `data` is dropped when it ends. Raises `LimitExceeded` where it says more than
        `limit_bytes`, and `OutOfRange`.
        """
        collected = Collector(limit_bytes)
        position, pause_s = 0, RETRY_FIRST_S
        while position < len(data) and not self.finished:
            try:
                taken = self.write_some(chunk_at(data, position))
            except (InvalidState, NotFound):
                break
            position += taken
            pause_s = RETRY_FIRST_S if taken else next_pause_s(pause_s)
            wait_s = 0.0 if taken else pause_s
            while (piece := self.read(timeout_s=wait_s)) is not None:
                collected.add(piece)
                wait_s = 0.0
        if not self.finished:
            with contextlib.suppress(InvalidState, NotFound, OutOfRange):
                self.close_stdin()
        for piece in self:
            collected.add(piece)
        return Collected(collected.streams(), self.wait())

    # -- control

    def signal(self, signal: int | str) -> None:
        """Send `"INT"`, `"SIGINT"` or 2 to the command's process group. Raises `InvalidState` when it has ended."""
        self._client.process_signal(process=self.id, signal=signal)

    def kill(self, grace_s: float | None = None) -> None:
        """TERM to the group, and after `grace_s` (None: 5, 0: at once) the end of the whole tree. Does not wait."""
        self._client.process_kill(process=self.id, grace_s=grace_s)

    def resize(self, rows: int, cols: int) -> None:
        """The size of its terminal, in cells."""
        self._client.process_resize(process=self.id, rows=rows, cols=cols)

    def wait(self, timeout_s: float | None = None) -> ExitRecord:
        """The exit record; does not read output, and what was not read stays readable. Raises `DeadlineExceeded`."""
        if self._inbox is not None and self._inbox.exit is not None:
            return self._inbox.exit
        return self._client.process_wait(process=self.id, timeout_s=timeout_s)

    def detach(self) -> None:
        """Stop receiving output; the command runs on, also past the end of a `with`."""
        if self._inbox is not None:
            self._client.drop(self._inbox)
            self._inbox = None
            self._client.process_detach(process=self.id)
        self._released = True

    def forget(self) -> None:
        """Let the guest drop the record and the output of an ended process; another link that reads it has the rest first."""
        if self._inbox is not None:
            self._client.drop(self._inbox)
        self._client.process_forget(process=self.id)
        self._released = True

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._released:
            return
        try:
            if self._inbox is None or self._inbox.exit is None:
                self.kill(0)
                self.wait(END_TIMEOUT_S)
            self.forget()
        except CoworkError:
            # Whatever made us leave says more than a link that is gone as well; without it, this is the news.
            if error is None:
                raise

    def _attached(self) -> Inbox:
        if self._inbox is None:
            raise InvalidState(f"this handle is not attached to process {self.id}: use client.attach({self.id!r})")
        return self._inbox
