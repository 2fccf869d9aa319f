"""How the kernel's OOM killer came to a command: read from the counters of its cgroup and of those above, while they are still there.

    root (all sessions) / s-NAME (a session) / commands / p-N (a command)

Rules
- A command's own counter tells that something in it was killed; whose limit that was, the level that counted an `oom` of its own says
  (`memory.events.local`). Of two levels that both did while the command lived, it is the one that did last.
- Where nobody below the root counted one, memory of the whole guest was short.

Reads; changes nothing. Source: Documentation/admin-guide/cgroup-v2.rst (memory.events, memory.peak from Linux 5.19 on).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from coworkd.model.limits import LimitScope, Oom
from coworkd.system import cgroup

_REMEMBERED = 1024


class Deaths(Struct, frozen=True, kw_only=True):
    """What the kernel counted in one command's cgroup."""

    oom_kills: int = 0
    oom: Oom | None = None
    pids_refused: int = 0


class OomLevels:
    """Remembers, of each level above commands, how many ooms it had counted and when that was seen to grow."""

    def __init__(self, root: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def judge(self, path: str, since: float) -> Deaths:
        """Of the command whose cgroup `path` is; `since` is when (monotonic) it was started."""
        events = cgroup.events(path, "memory.events")
        refused = cgroup.events(path, "pids.events").get("max", 0)
        kills = events.get("oom_kill", 0)
        oom = None if not kills else self._explain(path, own=events.get("oom", 0) > 0, since=since)
        return Deaths(oom_kills=kills, oom=oom, pids_refused=refused)

    def forget(self, session_path: str) -> None:
        """The session's cgroup goes."""
        self._seen.pop(session_path, None)

    def _explain(self, path: str, *, own: bool, since: float) -> Oom:
        if own:
            return _tell("process", path)
        session = path.rpartition("/")[0].rpartition("/")[0]
        levels: list[tuple[LimitScope, str]] = [("session", session)]
        if self._root is not None:
            levels.append(("guest", self._root))
        grown = [(self._grown_at(level), scope, level) for scope, level in levels]
        latest, scope, level = max(grown, key=lambda each: each[0])
        if latest < since:
            return Oom(scope="guest")
        return _tell(scope, level)

    def _grown_at(self, level: str) -> float:
        """When its own count was seen to grow last; the past where it never was."""
        count = cgroup.events(level, "memory.events.local").get("oom", 0)
        known, at = self._seen.get(level, (0, float("-inf")))
        if count > known:
            at = self._clock()
        self._seen.pop(level, None)
        self._seen[level] = (count, at)
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return at


def _tell(scope: LimitScope, path: str) -> Oom:
    limit_bytes = cgroup.number(path, "memory.max")
    return Oom(scope=scope, limit_bytes=limit_bytes, peak_bytes=cgroup.number(path, "memory.peak") or limit_bytes)
