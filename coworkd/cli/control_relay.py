"""Bytes between a command and the descriptors of `coworkctl`, unaltered, as they come.

Rules
- Output is written whole, also to a non-blocking terminal. A reader that is gone (EPIPE) ends the command.
- Stdin is read in a thread and offered until it was taken; at its end the command's stdin is closed. What is typed while it is diverted
  is not the command's.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from coworkd.client import Output
from coworkd.client.stdin import CHUNK_BYTES, RETRY_FIRST_S, next_pause_s
from coworkd.model.errors import CoworkError, OutOfRange

STDIN_BYTES = 64 * 1024
DETACH_KEY = b"\x1d"
"""Ctrl-], as telnet(1) has it."""


class Sink(Protocol):
    """What stdin goes to; `client.Process` is one."""

    def write_some(self, data: bytes, /) -> int: ...

    def close_stdin(self) -> None: ...


class Source(Protocol):
    """Where output comes from; `client.Process` is one."""

    def read(self) -> Output | None: ...


def write_whole(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`; EAGAIN is waited for."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def relay_output(source: Source, fds: dict[str, int], lost: Callable[[str], None]) -> None:
    """Write every piece to the descriptor of its stream until the last; `lost` is told of bytes the guest dropped.

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
        write_whole(fds[piece.stream], piece.data)


class StdinPump:
    """A thread that offers what comes on `fd`. `stop` and it takes no more; the thread itself ends with the program."""

    def __init__(
        self, sink: Sink, fd: int, *, close_at_end: bool = True, detached: Callable[[], None] | None = None
    ) -> None:
        """`detached` is called once, and the pump ends, when the detach key is among what was typed."""
        self._sink = sink
        self._fd = fd
        self._close_at_end = close_at_end
        self._detached = detached
        self._stopped = threading.Event()
        self._diverted: Callable[[bytes], None] | None = None
        self._thread = threading.Thread(target=self.pump, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def divert(self, take: Callable[[bytes], None] | None) -> None:
        """What is read from now on goes to `take`; None: to the command again."""
        self._diverted = take

    def pump(self) -> None:
        """Until the end of `fd`, the end of the command, or `stop`."""
        try:
            for data in self._pieces():
                self._offer(data)
                if self._stopped.is_set():
                    return
            if self._close_at_end and not self._stopped.is_set():
                self._sink.close_stdin()
        except CoworkError:
            # The command takes no more, has ended, or the link is gone: whoever reads its output is told.
            return

    def _pieces(self) -> Iterable[bytes]:
        while True:
            try:
                data = os.read(self._fd, STDIN_BYTES)
            except OSError:
                return
            if not data:
                return
            diverted = self._diverted
            if diverted is not None:
                diverted(data)
                continue
            if self._detached is not None and DETACH_KEY in data:
                self._stopped.set()
                self._detached()
                return
            yield data

    def _offer(self, data: bytes) -> None:
        view, pause_s = data, RETRY_FIRST_S
        while view and not self._stopped.is_set():
            taken = self._sink.write_some(view[:CHUNK_BYTES])
            view = view[taken:]
            pause_s = RETRY_FIRST_S if taken else next_pause_s(pause_s)
            if not taken:
                self._stopped.wait(pause_s)
