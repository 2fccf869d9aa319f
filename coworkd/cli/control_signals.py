"""Signals to `coworkctl` while it follows a command.

Rules
- Before there is a command, INT, QUIT, TERM and HUP end `coworkctl` as always: by an exception, so that every `with` is left.
- While one is started the first of them waits for it, a second ends us all the same.
- Then a handler only notes the signal; a thread acts on it, so that nothing is interrupted half-way. Another one watches
  over it: a guest that does not even answer is given up as well.
- INT and QUIT go to the command's group; where coworkd ended before it said that one has arrived, the next one is given it again, since
  two ask for the same and none for nothing. TERM and HUP end it with grace, a second of any of them at once; a shell, which
  ignores TERM, hears the HUP first. Where the guest does not say within `GIVE_UP_S` that it ended, the link is given up.
- Once TERM, HUP or a second signal has asked for the end, no write waits for a terminal or pipe that takes nothing (`writing`): an alarm
  ends it, by `TimeoutError`.
- WINCH resizes the command's terminal; a storm of them is one resize at a time, the last to the size that stays.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Protocol

from coworkd.client.repeating import was_cut_off
from coworkd.model.errors import CoworkError

GIVE_UP_S = 15.0
REDRAW_S = 0.05
STUCK_S = 1.0
ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_PASSED_ON: dict[int, str] = {signal.SIGINT: "INT", signal.SIGQUIT: "QUIT"}
_STOP = 0


class Command(Protocol):
    """What signals act on; `client.Process` is one."""

    def signal(self, signal: int | str, /) -> None: ...

    def kill(self, grace_s: float | None = None, /) -> None: ...

    def resize(self, rows: int, cols: int, /) -> None: ...


class Signals:
    """A context manager, from the main thread only. `received` is the first signal that asked for the end, or None."""

    def __init__(self, *, size: Callable[[], tuple[int, int]], give_up: Callable[[], None]) -> None:
        """`give_up` ends the link, from any thread."""
        self.received: int | None = None
        self.away = False
        """The link is lost and looked for: whoever asks for an end then has ours."""
        self._size = size
        self._give_up = give_up
        self._leave: Callable[[], None] | None = None
        self._resizing = self._redrawing = False
        self._command: Command | None = None
        self._deferring = self._deferred = False
        self._noted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._watched: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._actor = threading.Thread(target=self._act_on_all, daemon=True)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._before: dict[int, Any] = {}
        self._asked = 0
        self._writing = self._stuck = False
        self._writes = self._writes_seen = 0

    def defer(self) -> None:
        """A command is being started: one signal waits for `follow`, so that it ends the command and not only us."""
        self._deferring = True

    def follow(self, command: Command, *, leave: Callable[[], None] | None = None) -> None:
        """From now on signals are the command's; the first that asks for the end calls `leave` instead, where it is given."""
        self._command = command
        self._leave = leave
        self._actor.start()
        self._watcher.start()

    def __enter__(self) -> Signals:
        for number in (*ENDING, signal.SIGWINCH):
            self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._noted.put(_STOP)
        self._watched.put(_STOP)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around one write: it ends with `TimeoutError` where we are to end and nobody takes it. Threads but the main one wait."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._writes += 1
        self._writing = True
        try:
            self._give_up_stuck()
            yield
        finally:
            self._writing = False

    def resize(self) -> None:
        """The terminal may have another size now."""
        if not self._resizing:
            self._resizing = True
            self._noted.put(signal.SIGWINCH)

    def redraw(self) -> None:
        """The terminal shows something else: have a full-screen program draw anew, which it does for another size only."""
        self._redrawing = True
        self.resize()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            self.resize()
        elif self._command is not None or (self._deferring and not self._deferred):
            self._deferred = True
            self._noted.put(number)
            self._watched.put(number)
            self._asked += 1
            if self._asked > 1 or number in (signal.SIGTERM, signal.SIGHUP):
                signal.setitimer(signal.ITIMER_REAL, STUCK_S, STUCK_S)
        elif number in ENDING:
            raise SystemExit(128 + number)

    def _look(self, _: int, __: FrameType | None) -> None:
        self._stuck = self._stuck or (self._writing and self._writes == self._writes_seen)
        self._writes_seen = self._writes
        if self._writing:
            self._give_up_stuck()

    def _give_up_stuck(self) -> None:
        if self._stuck:
            raise TimeoutError(errno.ETIMEDOUT, "nobody takes it")

    def _act_on_all(self) -> None:
        while (number := self._noted.get()) != _STOP:
            self.act_on(number)

    def _watch(self) -> None:
        patience_s: float | None = None
        asked = 0
        while True:
            try:
                number = self._watched.get(timeout=patience_s)
            except queue.Empty:
                self._give_up()
                return
            if number == _STOP:
                return
            asked += number in ENDING
            if asked > 1 or number in (signal.SIGTERM, signal.SIGHUP):
                patience_s = GIVE_UP_S

    def act_on(self, number: int) -> None:
        """Do what `number` asks for; returns when the guest has answered, or the link is gone."""
        command = self._command
        if command is None:
            return
        if number == signal.SIGWINCH:
            self._resizing = False  # before the size is asked: one that changes now is a new one
            self._quietly(lambda: self._resize(command))
            return
        first = self.received is None
        self.received = self.received or number
        if self._leave is not None:
            self._leave()
        elif self.away:
            self._give_up()
        elif not first:
            self._quietly(lambda: command.kill(0.0))
        elif number in _PASSED_ON:
            self._quietly(lambda: _pass_on(command, _PASSED_ON[number]))
        else:
            if number == signal.SIGHUP:
                self._quietly(lambda: _pass_on(command, "HUP"))
            self._quietly(lambda: command.kill(None))

    def _resize(self, command: Command) -> None:
        rows, cols = self._size()
        if self._redrawing:
            self._redrawing = False
            command.resize(rows - 1 if rows > 1 else rows + 1, cols)
            time.sleep(REDRAW_S)  # what reads the size when it is signalled must see this one
        command.resize(rows, cols)

    @staticmethod
    def _quietly(act: Callable[[], None]) -> None:
        try:
            act()
        except CoworkError:
            # It ended a moment ago, or the link is gone: whoever reads its output is told that.
            return


def _pass_on(command: Command, name: str) -> None:
    while True:
        try:
            command.signal(name)
        except CoworkError as error:
            if not was_cut_off(error):
                raise
        else:
            return
