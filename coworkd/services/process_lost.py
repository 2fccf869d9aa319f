"""Commands whose end nobody saw: they ran when coworkd and the launcher were both killed, and no launcher tells of them.

What survives both is the audit log. Rules
- A command that began, or was adopted, since the last coworkd that came up began itself, and has no end in the log, ran to the last.
  The end of one that was adopted may be in the log before the adoption: what began is what began behind its last end.
  What of those the launcher does not hold now was lost with the launcher before.
- One boot is looked at: what a machine that stopped took along nobody expects to find.
- What began with the very launcher there is now, and is not held by it, was not lost: it was never let in, since coworkd was killed before
  that. Its start gets an end in the log (`process.start_failed`), and it may be asked for again. Where a coworkd had several launchers, one
  after the other, it recorded the loss of each (`launcher.lost`).
- At most `LOOK_BACK_BYTES` of the log are read; where that does not reach, it is said. Where a coworkd before us had the same launcher,
  it has looked itself, unless it never came up: then there is little to read, and no more than `GLANCE_BYTES` are.
- A line that was changed is passed over, whatever it says: it keeps nobody from coming up (`audit.verify` tells of it).
- They are told as every process that is lost (`lost`, once, in the log too), and kept as any that has ended, but without output.
  Arguments are as long as the log keeps them.

`find_unended` is pure; `Losses` asks for what it reads.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from coworkd.auditlog.chain import Broken, check_line, parse_record
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.restart import Adoption
from coworkd.services.process_adopting import Add
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_request import ONE_SHOT_PREFIX
from coworkd.services.process_table import ProcessTable

LOOK_BACK_BYTES = 64 * 1024 * 1024
GLANCE_BYTES = 4 * 1024 * 1024

_KINDS = (b'"kind":"process.', b'"kind":"audit.opened"', b'"kind":"daemon.start"', b'"kind":"launcher.lost"')
"""What a line is read for."""
_UNHEARD = "the launcher knows nothing of it: coworkd was killed before it let the command in; start it again"
_log = logging.getLogger("coworkd.process")
_ENDS = ("process.exit", "process.start_failed", "process.denied")


class Unended(Struct, frozen=True, kw_only=True):
    """A command that has begun and not ended, as the log has it."""

    id: str
    session: str
    argv: tuple[bytes, ...]
    pid: int | None
    started_at: float


class Found(Struct, frozen=True, kw_only=True):
    """What the log tells of those that ran: `whole` where it was read as far as it had to be."""

    unended: tuple[Unended, ...]
    """The oldest first."""
    unheard: tuple[Unended, ...] = ()
    """Of those that began with the very launcher there is: what it does not hold was never let in."""
    whole: bool


def find_unended(lines: Iterable[bytes], *, launcher: int | None = None) -> Found:
    """`lines` of the log, newest first. `launcher` is the pid of one that another coworkd had before us, None for one nobody had."""
    seen: dict[str, Unended | None] = {}
    adopted: set[str] = set()
    boot, came_up, had, begun, oldest = None, False, None, 0, 0
    replaced: set[str] | None = None
    """Once it is known that the launcher there is came in the place of another: what began with it."""
    size, reach, whole = 0, LOOK_BACK_BYTES if launcher is None else GLANCE_BYTES, True
    for line in lines:
        size += len(line)
        if size > reach:
            whole = False
            break
        if not any(kind in line for kind in _KINDS):
            continue
        try:
            check_line(line)
            record = parse_record(line)
        except Broken:
            continue
        boot = boot or record.get("boot")
        if record.get("boot") != boot:
            break
        oldest = record.get("seq", 0)
        if record["kind"] == "daemon.start":
            came_up, had = True, record.get("launcher_pid")
        elif record["kind"] == "launcher.lost":
            if launcher is not None and record.get("pid") != launcher and replaced is None:
                replaced = set(seen)
        elif record["kind"] == "audit.opened":
            if came_up:
                break
            begun += 1
            reach = LOOK_BACK_BYTES if begun > 1 else reach  # the one before us did not come up
        elif "process" in record:
            _note(record, seen, adopted)
    else:
        whole = oldest <= 1
    unended = [command for command in reversed(seen.values()) if command is not None]
    if launcher is not None and replaced is None and (had == launcher if came_up else begun <= 1):
        replaced = set(seen)
    here = replaced or set()
    return Found(
        unended=tuple(command for command in unended if command.id not in here),
        unheard=tuple(command for command in unended if command.id in here),
        whole=whole,
    )


def _note(record: dict[str, Any], seen: dict[str, Unended | None], adopted: set[str]) -> None:
    """What is seen of a process first, its newest record of these, counts; but of one that was adopted, whose start was not seen since, an
    end before that.
    """
    kind, process = record["kind"], record["process"]
    if kind in _ENDS or (kind == "process.adopt" and record.get("recorded")):
        if process in adopted or process not in seen:
            seen[process] = None
    elif kind in ("process.start", "process.adopt"):
        if kind == "process.start":
            adopted.discard(process)
        elif process not in seen:
            adopted.add(process)
        command = Unended(
            id=process,
            session=record.get("session", ""),
            argv=tuple(map(_bytes, record.get("argv", ()))),
            pid=record.get("pid"),
            started_at=record.get("started_at", record["at"]),
        )
        seen.setdefault(process, command)


def _bytes(word: str | dict[str, str]) -> bytes:
    return base64.b64decode(word["b64"]) if isinstance(word, dict) else word.encode()


class LookBack(Protocol):
    """Who reads the audit log backwards."""

    async def look_back(self, read: Callable[[Iterable[bytes]], Found], /) -> Found: ...


class Losses:
    """`take` once what the launcher kept is adopted."""

    def __init__(
        self,
        *,
        table: ProcessTable,
        record_failure: Callable[[Unended, CoworkError], Awaitable[None]],
        add: Add,
        vanished: Callable[[LiveProcess], None],
        adoption: Adoption,
    ) -> None:
        """`record_failure` gives a start its end in the log; `vanished` lets go of one that nobody waits for."""
        self._table = table
        self._record_failure = record_failure
        self._add = add
        self._vanished = vanished
        self._adoption = adoption

    async def take(self, log: LookBack, *, launcher: int | None) -> None:
        """Tell of those that were lost; `launcher` as in `find_unended`. A log that cannot be read keeps nobody from coming up."""
        # One of them may have an end, and be forgotten, by the time the log was read.
        held = {process.id for process in self._table.where()}
        try:
            found = await log.look_back(partial(find_unended, launcher=launcher))
        except CoworkError as error:
            _log.error("which commands were lost with the launcher before is not known: %s", error.message)
            self._adoption.unsearched = True
            return
        self._adoption.unsearched = not found.whole
        for command in found.unended:
            if command.id not in self._table:
                self._adoption.lost.append(command.id)
                self._lose(command)
        for command in found.unheard:
            if command.id not in held and command.id not in self._table:
                await self._record_failure(command, Unavailable(_UNHEARD, stage="restarted"))

    def _lose(self, command: Unended) -> None:
        one_shot = command.id.startswith(ONE_SHOT_PREFIX)
        process = self._add(command.id, command.session, command.argv, one_shot=one_shot, adopted=True)
        process.started, process.pid, process.started_at = True, command.pid, command.started_at
        process.built()
        process.learn(None)
        if one_shot:
            self._vanished(process)
