"""Following one command at the descriptors of `coworkctl`: its output, its input, its signals, questions about it, until its end.

Rules
- The terminal is given back before anything is said about the end, also of what the command had made of it (`control_screen`).
- The command runs on when we leave it (`leave`): by keys, or where a signal that asks for an end only asks for ours.
- What is said while the terminal is raw stands on lines of its own, on standard error, escaped.
- A link that is lost is found again by the client, at the very byte; meanwhile Ctrl-C gives it up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

from coworkd.cli.control_asking import Asker, DivertedKeys, TypedKeys
from coworkd.cli.control_relay import AtEnd, StdinPump, relay_output, write_whole
from coworkd.cli.control_screen import Replay, Screen
from coworkd.cli.control_signals import Signals
from coworkd.cli.control_tables import shown
from coworkd.cli.control_terminal import Terminal
from coworkd.client import Client, Output, Process
from coworkd.client.repeating import was_cut_off
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.process import ExitRecord

STDIN, STDOUT, STDERR = 0, 1, 2
FDS = {"stdout": STDOUT, "stderr": STDERR, "tty": STDOUT}
AGAIN_S = 30.0
LEAVE_S = 1.0
CTRL_C = b"\x03"


class Manner(NamedTuple):
    """How a command is followed."""

    tty: bool
    stdin: bool
    """Pass standard input on; a terminal's is passed on in any case where the command has one."""
    keys: bytes = b""
    """What leaves the command when it is typed at a terminal; empty for nothing."""
    leaves: bool = False
    """A signal that asks for an end leaves the command, and its input stays open at the end of ours."""
    asks: bool = False
    """Ask here about deletes of this command."""
    replay: Replay | None = None


class OutputClosed(Exception):
    """A descriptor took no more of the command's output; the cause says why."""


class KeySink:
    """A terminal's input: behind what others type. What was on its way over a restart of coworkd is not typed twice; `say` tells of it."""

    def __init__(self, process: Process, say: Callable[[str], None]) -> None:
        self._process = process
        self._say = say

    def write_some(self, data: bytes, /) -> int:
        try:
            return self._process.append_some(data)
        except Unavailable as error:
            if not was_cut_off(error):
                raise
            self._say("coworkd was restarted: what was typed last may not have arrived")
            return len(data)

    def close_stdin(self) -> None:
        """A terminal's input has no end."""


class Follower:
    """One command that is followed, once. `left` says that it was left to itself, `lost` that the link to it was lost for good,
    `untaken` that it was left before it had said that it took all that was typed.
    """

    def __init__(self, client: Client, process: Process, signals: Signals, manner: Manner) -> None:
        self.left = False
        self.untaken = False
        self.lost = False
        self._client = client
        self._process = process
        self._signals = signals
        self._manner = manner
        self._screen = Screen() if manner.tty and os.isatty(STDOUT) else None
        self._given_up = False
        self._at_line_start = True
        self._raw = False

    def run(self) -> ExitRecord | None:
        """Relay until the end; None where the command was left. Raises `OutputClosed`; else as the client."""
        record: ExitRecord | None = None
        with Terminal(STDIN, wanted=self._manner.tty, stopped=self._stopped, resumed=self._resumed) as terminal:
            self._raw = terminal.raw
            try:
                record = self._follow()
                return record
            finally:
                ended = record is not None and record.exit.reason == "exited"
                if not ended:
                    terminal.drop_typed()
                self._give_screen_back(new_line=not ended)

    def _follow(self) -> ExitRecord | None:
        self._client.link_changed = self._link_changed
        pump = self._make_pump()
        self._signals.follow(self._process, leave=self.leave if self._manner.leaves else None)
        with contextlib.ExitStack() as running:
            if pump is not None:
                pump.start()
                running.callback(pump.stop)
            if self._manner.asks:
                running.callback(self._start_asker(pump).stop)
            return self._relay()

    def leave(self) -> None:
        """Stop following, from any thread; the command runs on."""
        self.left = True
        with contextlib.suppress(CoworkError):  # else our place is held for a while, and holds the command back
            self._client.call("process.detach", {"process": self._process.id}, timeout_s=LEAVE_S)
        self._client.close()

    def _leave_by_keys(self, taken: bool) -> None:
        self.untaken = not taken
        self.leave()

    def _relay(self) -> ExitRecord | None:
        try:
            relay_output(self._process, self._write, lambda told: self._say(shown(told)))
            if self._manner.replay is not None:
                self._show(STDOUT, self._manner.replay.finish())
            return self._process.wait()
        except CoworkError as error:
            if self.left:
                return None
            self.lost = self._client.broken is not None
            if self._given_up:
                raise Unavailable("the link to coworkd was lost, and is not looked for any longer") from error
            raise
        except OSError as error:
            raise OutputClosed from error

    def _make_pump(self) -> StdinPump | None:
        if not self._manner.stdin and not self._raw:
            return None
        if self._manner.tty:
            at_end = AtEnd.NOTHING if self._raw or self._manner.leaves else AtEnd.END_OF_FILE_CHARACTER
            return StdinPump(
                KeySink(self._process, self._say),
                STDIN,
                at_end=at_end,
                keys=self._manner.keys if self._raw else b"",
                detached=self._leave_by_keys,
                typed=self._typed,
            )
        if self._manner.leaves:
            self._process.resume_stdin()
        return StdinPump(self._process, STDIN, at_end=AtEnd.NOTHING if self._manner.leaves else AtEnd.CLOSE)

    def _typed(self, data: bytes) -> None:
        if self._signals.away and not data.strip(CTRL_C):  # by itself: one in a paste is a byte of it
            self._given_up = True
            self._client.close()

    def _start_asker(self, pump: StdinPump | None) -> Asker:
        """Ask about this command's deletes, with the keys that its input is read from."""
        asker = Asker(
            self._client,
            TypedKeys(STDIN) if pump is None else DivertedKeys(pump),
            wanted=lambda question: question.process == self._process.id,
            say=self._say,
        )
        asker.start()
        return asker

    # -- what is shown

    def _write(self, piece: Output) -> None:
        data = piece.data if self._manner.replay is None else self._manner.replay.feed(piece.offset, piece.data)
        self._show(FDS[piece.stream], data)

    def _show(self, fd: int, data: bytes) -> None:
        if self._screen is not None:
            self._screen.feed(data)
            self._at_line_start = data.endswith(b"\n") if data else self._at_line_start
        with self._signals.writing():
            write_whole(fd, data)

    def _say(self, line: str) -> None:
        end = "\r\n" if self._raw else "\n"
        before = "" if self._at_line_start else end
        self._at_line_start = True
        with contextlib.suppress(OSError), self._signals.writing():
            write_whole(STDERR, f"{before}coworkctl: {line}{end}".encode("utf-8", "backslashreplace"))

    def _link_changed(self, error: CoworkError | None) -> None:
        self._signals.away = error is not None
        if error is not None:
            self._say(
                f"the link is lost; looking for coworkd for {AGAIN_S:g} s{', Ctrl-C gives up' if self._raw else ''}"
            )
        else:
            self._say("the link is there again")
            self._signals.redraw()

    def _stopped(self) -> None:
        self._give_screen_back()
        self._raw = False

    def _resumed(self) -> None:
        self._raw = True
        if self._screen is not None:
            with contextlib.suppress(OSError), self._signals.writing():
                write_whole(STDOUT, self._screen.redo())
        self._signals.redraw()

    def _give_screen_back(self, *, new_line: bool = False) -> None:
        if self._screen is not None:
            end = b"\r\n" if new_line and not self._at_line_start else b""
            with contextlib.suppress(OSError), self._signals.writing():
                write_whole(STDOUT, self._screen.undo() + end)
