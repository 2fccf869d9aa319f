"""Which sessions have a child waiting, and when one is made.

Rules
- At most `_LIMIT` sessions have one: those used last.
- None is made while a command starts or while the answer of one that ended is on its way.
- A standby that cannot be had is no error: the next command makes its own, and tells why if it cannot.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from coworkd.launcher.session import Session
from coworkd.launcher.spawn import Spawner

_LIMIT = 8
_AFTER_START_S = 0.03
_AFTER_END_S = 0.002


class Standbys:
    """Looks after the standbys of `sessions`, which own them."""

    def __init__(self, sessions: Mapping[str, Session], spawner: Spawner) -> None:
        self._sessions = sessions
        self._spawner = spawner
        self._standing: dict[str, None] = {}
        self._wanting: dict[str, float] = {}

    def want_now(self, session: str) -> None:
        """The session was opened."""
        self._wanting[session] = 0.0

    def want_after_start(self, session: str) -> None:
        """Its standby became a command."""
        self._wanting[session] = time.monotonic() + _AFTER_START_S

    def want_after_end(self, session: str) -> None:
        """A command of it has ended."""
        self._wanting[session] = time.monotonic() + _AFTER_END_S

    def next_due(self) -> float | None:
        """When (monotonic) `make_due` has something to do."""
        return min(self._wanting.values(), default=None)

    def make_due(self) -> None:
        """Have a child wait in every session whose time has come."""
        for name, due in list(self._wanting.items()):
            if time.monotonic() >= due:
                del self._wanting[name]
                if name in self._sessions:
                    self._make(self._sessions[name])

    def forget(self, pid: int) -> None:
        """A child was reaped: if it waited (someone killed it), its session has none now."""
        for name in self._standing:
            session = self._sessions.get(name)
            if session is not None and session.standby is not None and session.standby.pid == pid:
                session.standby.dismiss()
                session.standby = None

    def discard(self, session: str) -> None:
        """The session is closed, with its standby."""
        self._standing.pop(session, None)

    def _make(self, session: Session) -> None:
        if session.standby is None:
            try:
                session.standby = self._spawner.make_standby(session)
                self._spawner.make_ready()
            except OSError:
                return
        self._standing.pop(session.name, None)
        self._standing[session.name] = None
        while len(self._standing) > _LIMIT:
            oldest = next(iter(self._standing))
            del self._standing[oldest]
            standby = self._sessions[oldest].take_standby() if oldest in self._sessions else None
            if standby is not None:
                standby.dismiss()
