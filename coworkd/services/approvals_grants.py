"""What was answered once and holds for a while: for one command, or for a session's folder. And how often a session may ask.

Rules
- A grant is a process's, of all that have been since boot, and ends with its time. What is refused goes before what is allowed.
- What is allowed by its own name is allowed once: a file that stands there again is asked about.
- A grant is about names. Where the session puts something else at one that is allowed, by a rename or a link, all grants about it end.
- At most `GRANTS` are kept, of which the oldest go first: whoever loses one is asked about again.
- A folder's grant ends with the mount it was given for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Set
from typing import NamedTuple

import trio

from coworkd.services.approvals_open import AskingFolder
from coworkd.system.process_command import Identity

GRANTS = 1024
ONCE_S = 600.0
DENIED_S = 60.0
BURST, A_SECOND = 100.0, 1.0
"""How many questions a session may ask at once, and how many it gets back in a second."""


class Grant(NamedTuple):
    """What a command was answered of paths that it has not asked for yet; `trees` are meant with all below."""

    allow: bool
    paths: set[bytes]
    trees: frozenset[bytes]
    sorted: tuple[bytes, ...]
    """Both."""
    until: float

    def covers(self, path: bytes) -> bool:
        return path in self.paths or (bool(self.trees) and not self.trees.isdisjoint((path, *_directories_above(path))))

    def is_about(self, path: bytes) -> bool:
        """Whether it covers `path`, or anything below it."""
        below = path + b"/" if path else b""
        after = bisect_left(self.sorted, below)
        return self.covers(path) or (after < len(self.sorted) and self.sorted[after].startswith(below))


class Grants:
    """By folder and command, and by folder."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._folders: set[AskingFolder] = set()
        self._commands: OrderedDict[tuple[AskingFolder, Identity], list[Grant]] = OrderedDict()

    def look(self, asking: AskingFolder, identity: Identity | None, path: bytes) -> bool | None:
        """Whether `path` is allowed or refused already; None where somebody has to be asked."""
        if asking in self._folders:
            return True
        if identity is None:
            return None
        held = self._commands.get((asking, identity), [])
        found = [grant for grant in held if grant.until > self._now() and grant.covers(path)]
        if not found:
            return None
        allowed = all(grant.allow for grant in found)
        if allowed:
            for grant in found:
                grant.paths.discard(path)
        return allowed

    def allow_folder(self, asking: AskingFolder) -> None:
        """Whatever the session deletes in it."""
        self._folders.add(asking)

    def add(
        self,
        asking: AskingFolder,
        identity: Identity,
        *,
        allow: bool,
        paths: Set[bytes],
        trees: tuple[bytes, ...],
    ) -> None:
        """For `ONCE_S` or, of what is refused, for `DENIED_S`."""
        held = self._commands.setdefault((asking, identity), [])
        self._commands.move_to_end((asking, identity))
        held[:] = [grant for grant in held if grant.until > self._now()]
        until = self._now() + (ONCE_S if allow else DENIED_S)
        held.append(Grant(allow, set(paths), frozenset(trees), tuple(sorted({*paths, *trees})), until))
        while len(self._commands) > GRANTS:
            self._commands.popitem(last=False)

    def replaced(self, asking: AskingFolder, path: bytes) -> None:
        """Something else stands at `path` now, with all below it; `b""`: anywhere. What was allowed there holds no more."""
        for key, held in self._commands.items():
            if key[0] is asking:
                held[:] = [each for each in held if not each.allow or not each.is_about(path)]

    def drop(self, asking: AskingFolder) -> None:
        """The folder is mounted no more, or anew."""
        self._folders.discard(asking)
        for key in [key for key in self._commands if key[0] is asking]:
            del self._commands[key]


class Pace:
    """How often each session may ask."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._sessions: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def give_back(self, session: str) -> None:
        """A question was answered with yes: whoever has somebody to ask may ask."""
        if session in self._sessions:
            left, at = self._sessions[session]
            self._sessions[session] = min(BURST, left + 1), at

    def take(self, session: str) -> bool:
        """Whether one more question may be asked now."""
        left, at = self._sessions.pop(session, (BURST, self._now()))
        left = min(BURST, left + (self._now() - at) * A_SECOND)
        self._sessions[session] = max(left - 1, 0.0) if left >= 1 else left, self._now()
        while len(self._sessions) > GRANTS:
            self._sessions.popitem(last=False)
        return left >= 1


def _directories_above(path: bytes) -> list[bytes]:
    """The folder itself is the last of them, and its own only one."""
    found = []
    while b"/" in path:
        path = path[: path.rindex(b"/")]
        found.append(path)
    return [*found, b""]
