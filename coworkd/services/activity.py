"""Activity: what sessions change in their folders, as audit records `folder.change` and events `activity`.

Rules
- A change is told `WINDOW_S` after the first of its window, folded with those like it (`activity_folding`). A session has room for `BURST`
  lines at once and `A_SECOND` more each second; past that they are folded further. So an installation of ten thousand files is a few
  hundred records, whose counts are true.
- At most `WINDOW_LINES` wait in a window, which is told early then.
- Told once it is recorded. A log that refuses holds it back, at most `HELD_LINES`; what finds no room there is counted, and that is told
  when the log works again.
- What a source has missed is told as `lost`.

Who it was is judged by whoever calls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import trio

from coworkd.model.errors import CoworkError
from coworkd.model.folder import FolderChange
from coworkd.model.names import OsBytes
from coworkd.model.ports import AuditReader, EventPort
from coworkd.services.activity_folding import Author, Line, Window

WINDOW_S = 1.0
WINDOW_LINES = 4096
BURST, A_SECOND = 256, 16
HELD_LINES = 2048
_BATCH = 256
_RETRY_S = 2.0
_SESSIONS = 1024
_log = logging.getLogger("coworkd.activity")


class _Session:
    """One session's window and room."""

    def __init__(self, now: float) -> None:
        self.window = Window()
        self.began = now
        self.room = float(BURST)
        self.room_at = now


class Activity:
    """Takes changes by `changed`; `serve` owns the task that writes them."""

    def __init__(self, *, audit: AuditReader, events: EventPort, clock: Callable[[], float] = time.time) -> None:
        self._audit = audit
        self._events = events
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._held: list[tuple[str, Line]] = []
        self._unheld = 0
        self._arrived = trio.Event()

    def changed(self, session: str, author: Author, change: FolderChange, *, inferred: bool = False) -> None:
        """A session has changed something. Never waits."""
        self._add(
            session,
            Line(
                author=author,
                change=change.change,
                path=change.path,
                to=change.to,
                size=change.size,
                at=change.at or self._clock(),
                inferred=inferred,
            ),
        )

    def lost(self, session: str, folder: str, count: int) -> None:
        """So many changes were not seen; 0 where nobody knows how many."""
        author = Author(folder, None)
        self._add(session, Line(author=author, change="lost", path=b"", count=count, at=self._clock()))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns. Cancelled, it writes what it has."""
        task_status.started()
        try:
            while True:
                await self._arrived.wait()
                self._arrived = trio.Event()
                while (due := self._due()) is not None or self._held:
                    if due is not None and not self._held:
                        await trio.sleep_until(due)
                    self._take(everything=False)
                    if self._held and not await self._write():
                        await trio.sleep(_RETRY_S)
        finally:
            with trio.move_on_after(1.0, shield=True):
                await trio.lowlevel.checkpoint()  # those who end with it may have something to say at last
                self._take(everything=True)
                while self._held and await self._write():
                    continue

    def _add(self, session: str, line: Line) -> None:
        known = self._sessions.get(session)
        if known is None:
            self._forget_quiet()
            known = self._sessions[session] = _Session(trio.current_time())
        if not len(known.window):
            known.began = trio.current_time()
        known.window.add(line)
        if len(known.window) >= WINDOW_LINES:
            self._tell(session, known)
        self._arrived.set()

    def _due(self) -> float | None:
        """When the next window is over."""
        began = [known.began for known in self._sessions.values() if len(known.window)]
        return min(began) + WINDOW_S if began else None

    def _take(self, *, everything: bool) -> None:
        """Take what windows hold that are over."""
        now = trio.current_time()
        for session, known in self._sessions.items():
            if len(known.window) and (everything or now >= known.began + WINDOW_S):
                self._tell(session, known)

    def _forget_quiet(self) -> None:
        if len(self._sessions) >= _SESSIONS:
            for session, known in list(self._sessions.items()):
                if not len(known.window) and self._room(known) >= BURST:
                    del self._sessions[session]

    def _tell(self, session: str, known: _Session) -> None:
        lines = known.window.take(max(1, int(self._room(known))))
        known.room = max(0.0, known.room - len(lines))
        for line in lines:
            if len(self._held) < HELD_LINES:
                self._held.append((session, line))
            else:
                self._unheld += line.count

    def _room(self, known: _Session) -> float:
        now = trio.current_time()
        known.room = min(float(BURST), known.room + (now - known.room_at) * A_SECOND)
        known.room_at = now
        return known.room

    async def _write(self) -> bool:
        """Record some and tell them; False where the log refuses."""
        batch = self._held[:_BATCH]
        records = [("folder.change", compose_record(session, line)) for session, line in batch]
        unheld = self._unheld
        if unheld:
            records.append(("folder.change", {"change": "lost", "count": unheld}))
        try:
            await self._audit.record_all(records)
        except CoworkError as error:
            _log.error("changes in folders are not recorded, they are held back: %s", error.message)
            return False
        del self._held[: len(batch)]
        self._unheld -= unheld
        for session, line in batch:
            self._events.publish("activity", compose_event(session, line))
        return True


def compose_record(session: str, line: Line) -> dict[str, Any]:
    """The fields of the audit record."""
    return {
        "session": session,
        "process": line.author.process,
        "name": line.author.folder,
        "path": line.path,
        "change": line.change,
        "to": line.to or None,
        "size": line.size if line.size >= 0 else None,
        "count": line.count if line.count != 1 else None,
        "changed_at": line.at,
        "inferred": line.inferred or None,
    }


def compose_event(session: str, line: Line) -> dict[str, Any]:
    """The parameters of `activity`: as the record."""
    fields = {name: value for name, value in compose_record(session, line).items() if value is not None}
    fields["folder"] = fields.pop("name")
    for name in ("path", "to"):
        if name in fields:
            fields[name] = OsBytes(fields[name])
    return fields
