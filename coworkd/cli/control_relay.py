"""Bytes between a command and the descriptors of `coworkctl`, unaltered, as they come.

Rules
- Output is written whole, also to a non-blocking terminal. A reader that is gone (EPIPE) ends the command.
- One thread reads stdin, another offers it until it was taken; between them are at most `QUEUED_BYTES` and a piece. So the keys that
  detach, and a Ctrl-C that gives up, are seen also while a command reads nothing, or nobody answers.
- At the end of stdin the command's stdin is closed, or its terminal told by its end-of-file character.
- What is typed while it is diverted is not the command's.
- What was typed before the keys that detach is the command's: it has `LAST_WORDS_S` to take it before it is left, and `detached` is told
  whether it has. Where it has not, nothing more is offered.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from coworkd.cli.control_detach import PATIENCE_S, DetachKeys
from coworkd.client import Output
from coworkd.client.stdin import CHUNK_BYTES, RETRY_FIRST_S, next_pause_s
from coworkd.model.errors import CoworkError, OutOfRange

STDIN_BYTES = 64 * 1024
QUEUED_BYTES = 512 * 1024
LOOK_S = 0.2
LAST_WORDS_S = 0.5
VEOF = b"\x04"
"""The end-of-file character of a terminal nobody has set otherwise: it ends a line that has begun, and at the start of one the input."""


class Sink(Protocol):
    """What stdin goes to; `client.Process` is one."""

    def write_some(self, data: bytes, /) -> int: ...

    def close_stdin(self) -> None: ...


class Source(Protocol):
    """Where output comes from; `client.Process` is one."""

    def read(self) -> Output | None: ...


class AtEnd(Enum):
    """What the end of our stdin is for the command."""

    CLOSE = auto()
    END_OF_FILE_CHARACTER = auto()
    NOTHING = auto()


def write_whole(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`; EAGAIN is waited for."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def relay_output(source: Source, write: Callable[[Output], None], lost: Callable[[str], None]) -> None:
    """Write every piece until the last; `lost` is told of bytes the guest dropped.

    Raises `OSError` where a descriptor takes no more, `Unavailable` where the link is gone.
    """
    while True:
        try:
            piece = source.read()
        except OutOfRange as error:
            lost(error.message)
            continue
        if piece is None:
            return
        write(piece)


class Pieces:
    """What was read and not offered yet: `QUEUED_BYTES`, and the piece that goes past them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0

    def put(self, piece: bytes, timeout_s: float) -> bool:
        """Add it as soon as there is room; False where there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._bytes < QUEUED_BYTES, timeout_s):
                return False
            self._waiting.append(piece)
            self._bytes += len(piece)
            self._changed.notify_all()
            return True

    def get(self) -> bytes:
        """The oldest one, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            piece = self._waiting.popleft()
            self._bytes -= len(piece)
            self._changed.notify_all()
            return piece


class StdinPump:
    """Offers what comes on `fd`. `stop` and it takes no more, not from `fd` either."""

    def __init__(
        self,
        sink: Sink,
        fd: int,
        *,
        at_end: AtEnd = AtEnd.CLOSE,
        keys: bytes = b"",
        detached: Callable[[bool], None] = lambda taken: None,
        typed: Callable[[bytes], None] = lambda data: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`detached` is called once, and the pump ends, when `keys` are among what was typed: with False where the command has not
        taken all that was before them. `typed` sees all that is.
        """
        self._sink = sink
        self._fd = fd
        self._at_end = at_end
        self._keys = DetachKeys(keys)
        self._detached = detached
        self._typed = typed
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self._pieces = Pieces()
        self._all_taken = False
        self._diverted: Callable[[bytes], None] | None = None
        self._wake, self._woken = os.pipe()
        self._reader = threading.Thread(target=self.read_all, daemon=True)
        self._writer = threading.Thread(target=self.offer_all, daemon=True)

    def start(self) -> None:
        self._writer.start()
        self._reader.start()

    def stop(self) -> None:
        """Take no more, once; returns when nobody reads `fd` any more, so that its keys are whose they should be."""
        self._stopped.set()
        os.write(self._woken, b".")
        if self._reader.ident is not None:
            self._reader.join(5 * LOOK_S)
        self._pieces.put(b"", 0.0)  # where there is no room, there is something to wake up from
        if not self._reader.is_alive():
            os.close(self._wake)
            os.close(self._woken)

    def divert(self, take: Callable[[bytes], None] | None) -> None:
        """What is read from now on goes to `take`; None: to the command again."""
        self._diverted = take

    def read_all(self) -> None:
        """Read until the end of `fd`, the keys, or `stop`."""
        while not self._stopped.is_set():
            data = self._read()
            if data is None:  # nothing followed what may have begun the keys
                passed, found = self._keys.flush(), False
            elif not data:
                self._put(self._keys.flush())
                self._put_end()
                return
            elif (divert := self._diverted) is not None:
                divert(data)
                continue
            else:
                self._typed(data)
                passed, found = self._keys.feed(data)
            if found:
                self._detached(self._hand_over(passed))
                return
            self._put(passed)

    def offer_all(self) -> None:
        """Offer what was read, until its end, the end of the command, or `stop`."""
        last = b"\n"
        try:
            while (data := self._pieces.get()) and not self._stopped.is_set():
                self._offer(data)
                last = data[-1:]
            if not self._stopped.is_set():
                self._end(last)
                self._all_taken = True
        except CoworkError:
            # The command takes no more, has ended, or the link is gone: whoever reads its output is told.
            return

    def _read(self) -> bytes | None:
        """What came, empty at the end; None where nothing came in time."""
        ready = select.select([self._fd, self._wake], [], [], self._patience_s if self._keys.holding else None)[0]
        if self._wake in ready:
            return b""
        if not ready:
            return None
        try:
            return os.read(self._fd, STDIN_BYTES)
        except BlockingIOError:
            return self._read()
        except OSError:
            return b""

    def _put(self, data: bytes) -> None:
        """Wait for room."""
        while data and not self._stopped.is_set() and not self._pieces.put(data, LOOK_S):
            pass

    def _hand_over(self, last: bytes) -> bool:
        """Wait a little until the command has taken all that was typed before it is left: whoever leaves it closes the link."""
        self._at_end = AtEnd.NOTHING
        until = time.monotonic() + LAST_WORDS_S
        pieces = (last, b"") if last else (b"",)
        handed = all(self._pieces.put(piece, max(0.0, until - time.monotonic())) for piece in pieces)
        if handed and self._writer.is_alive():
            self._writer.join(max(0.0, until - time.monotonic()))
        if not self._all_taken:
            self._stopped.set()
        return self._all_taken

    def _put_end(self) -> None:
        """An empty piece is the end."""
        while not self._stopped.is_set() and not self._pieces.put(b"", LOOK_S):
            pass

    def _offer(self, data: bytes) -> None:
        view, pause_s = data, RETRY_FIRST_S
        while view and not self._stopped.is_set():
            taken = self._sink.write_some(view[:CHUNK_BYTES])
            view = view[taken:]
            pause_s = RETRY_FIRST_S if taken else next_pause_s(pause_s)
            if not taken:
                self._stopped.wait(pause_s)

    def _end(self, last: bytes) -> None:
        if self._at_end is AtEnd.CLOSE:
            self._sink.close_stdin()
        elif self._at_end is AtEnd.END_OF_FILE_CHARACTER:
            self._offer(VEOF if last == b"\n" else 2 * VEOF)
