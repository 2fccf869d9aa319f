"""Which command it was: from a process that changed a file, or wants to delete one, to the process of its session.

Rules
- A process that is there is judged by its ancestors, of which a sandbox's init and its bubblewrap are two (`system.process_parents`).
  The init is known only once the command's start is told, bubblewrap before it can do anything. The outermost that is known counts: a
  session that forks for long enough chooses the numbers below it, that of a command which ended a moment ago, say.
- One that is gone is looked up among those that were seen within `REMEMBERED_S`, and among the commands themselves; else, where one
  command alone ran in the session then, it was that, which is told as `inferred`.
- What belongs to no command of the session (coworkd's own worker, say) has no process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from coworkd.model.ports import CallerDirectory
from coworkd.system.process_parents import read_ancestry

REMEMBERED_S = 2.0
AGAIN_S = 0.05
"""When to ask again for whom nobody knows: several times as long as the launcher is quiet about a one-shot (`launcher.process.QUIET_S`),
whose processes coworkd hears of with its end, or a moment after its beginning."""
_REMEMBERED = 1024


class Caller(NamedTuple):
    """Who did it, as far as it is known."""

    process: str | None
    inferred: bool = False


class Callers:
    """Asks the processes. Never waits: a few small files of /proc are read for a pid that was not seen lately."""

    def __init__(
        self,
        *,
        read_ancestry: Callable[[int], tuple[int, ...]] = read_ancestry,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes: CallerDirectory
        self._read_ancestry = read_ancestry
        self._monotonic = monotonic
        self._seen: OrderedDict[int, tuple[tuple[str, str] | None, float]] = OrderedDict()

    def attach(self, processes: CallerDirectory) -> None:
        """Say who knows the commands; before use."""
        self._processes = processes

    def find(self, session: str, pid: int, at: float, *, waits: bool = False) -> Caller:
        """Who `pid` is, a process that did something in a view of `session` at `at`. One that `waits` is looked at, whoever had its
        number a moment ago."""
        seen = None if waits else self._seen.get(pid)
        if seen is None or self._monotonic() - seen[1] > REMEMBERED_S:
            ancestry = self._read_ancestry(pid) if pid else ()
            if not ancestry:
                return self.guess(session, pid, at)
            seen = self.owner(ancestry), self._monotonic()
            self._remember(pid, seen)
        owner = seen[0]
        return Caller(owner[1] if owner is not None and owner[0] == session else None)

    def owner(self, ancestry: Sequence[int]) -> tuple[str, str] | None:
        """Session and process of whoever has these ancestors; None for what is no session's."""
        return next(filter(None, map(self._processes.find_by_ancestor, reversed(ancestry))), None)

    def guess(self, session: str, pid: int, at: float) -> Caller:
        """Of somebody who is gone."""
        owner = self.owner((pid,))
        if owner is not None and owner[0] == session:
            return Caller(owner[1])
        process = self._processes.only_one_at(session, at)
        return Caller(process, process is not None)

    def _remember(self, pid: int, seen: tuple[tuple[str, str] | None, float]) -> None:
        self._seen.pop(pid, None)
        self._seen[pid] = seen
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
