"""Which sessions have something waiting for their next command, and when it is made: a standby, and of that a warm sandbox.

    nothing ──▶ standby (a forked child in the session's place) ──▶ warm sandbox (built, its shim waiting), `Spawn.warm` of them

Rules
- At most `_LIMIT` sessions have any: those used last, and not those unused for `_UNUSED_S`.
- Nothing is made while a command starts or while the answer of one that ended is on its way; a warm sandbox not before the guest has
  been quiet for a moment, since it costs more than it saves one that comes in the middle of it.
- Nothing is born in a session that is paused: a child that froze at its birth would keep a copy of the forker's socket.
- A warm sandbox is what the session's last command could have had. One that would be something else is dropped, and so are all where
  the session's tree changes or memory gets short (`pressure`).
- Nothing waiting is no error: the next command makes its own, and tells why if it cannot. After one that did not come up there is a pause,
  longer each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from msgspec import structs

from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.pressure import Pressure
from coworkd.launcher.readers import Readers
from coworkd.launcher.reaper import Reaper
from coworkd.launcher.session import Session
from coworkd.launcher.spawn import Spawner
from coworkd.launcher.warm import WarmSandbox, walls_of
from coworkd.model.launch import Spawn, WarmCounts
from coworkd.model.limits import CgroupLimits

_LIMIT = 8
_UNUSED_S = 300.0
_AFTER_START_S = 0.03
_AFTER_END_S = 0.002
_QUIET_S = 0.02
_END_S = 5.0
_BORN_S = 0.2
_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 300.0


class _Plan:
    """What a session's next warm sandboxes are to be."""

    def __init__(self, template: Spawn) -> None:
        self.template = template
        self.walls = walls_of(template)
        self.retry_at = 0.0
        """Not before (monotonic) is another one made."""
        self._pause_s = _RETRY_FIRST_S

    def failed(self) -> None:
        """One did not come up: perhaps for want of processes or memory, perhaps its filters leave a shim no way to live."""
        self.retry_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _RETRY_MOST_S)

    def succeeded(self) -> None:
        self._pause_s = _RETRY_FIRST_S


class Pool:
    """Looks after what waits in `sessions`, which own it."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        *,
        readers: Readers,
        spawner: Spawner,
        reaper: Reaper,
        pressure: Pressure,
    ) -> None:
        self._sessions = sessions
        self._readers = readers
        self._spawner = spawner
        self._reaper = reaper
        self._pressure = pressure
        self._used_at: dict[str, float] = {}
        """Of the sessions that have or may have something, the one used last at the end."""
        self._wanting: dict[str, float] = {}
        self._plans: dict[str, _Plan] = {}
        self._leaving: dict[str, set[Bwrap]] = {}
        """By session, those that were dismissed and are not reaped yet: they keep its tree."""
        self._quiet_at = 0.0
        self._counts = dict.fromkeys(("taken", "cold_instead", "died", "dropped"), 0)
        pressure.on_short = self.memory_short

    def counts(self, request_id: int) -> WarmCounts:
        """Of this launcher's life, and how many wait now."""
        waiting = sum(sandbox.ready for session in self._sessions.values() for sandbox in session.warm)
        return WarmCounts(id=request_id, waiting=waiting, **self._counts)

    # -- a command comes ----------------------------------------------------------------------------------------

    def take(self, session: Session, request: Spawn) -> WarmSandbox | None:
        """One for `request`, the caller's from now on; None where none fits."""
        self._learn(session, request)
        if not request.warm:
            return None
        found = next((each for each in session.warm if each.ready and each.suits(request)), None)
        if found is None:
            self._counts["cold_instead"] += 1
            return None
        session.warm.remove(found)
        self._counts["taken"] += 1
        return found

    def _learn(self, session: Session, request: Spawn) -> None:
        """What comes next will most likely be like `request`."""
        plan = self._plans.get(session.name)
        if plan is None or plan.walls != walls_of(request):
            self._plans[session.name] = _Plan(
                structs.replace(request, argv=(), environment=(), note=b"", tty=None, limits=CgroupLimits())
            )
            self._drop(session)
        elif plan.template.warm != request.warm:
            plan.template = structs.replace(plan.template, warm=request.warm)
            if len(session.warm) > request.warm:
                self._drop(session)

    # -- when something is made ---------------------------------------------------------------------------------

    def want_now(self, session: str) -> None:
        """The session was opened."""
        self._want(session, 0.0)

    def want_after_start(self, session: str) -> None:
        """What waited has become a command."""
        self._quiet_at = time.monotonic() + _QUIET_S
        self._want(session, time.monotonic() + _AFTER_START_S)

    def want_after_end(self, session: str) -> None:
        """A command of it has ended."""
        self._want(session, time.monotonic() + _AFTER_END_S)

    def _want(self, session: str, due: float) -> None:
        self._wanting[session] = due
        self._used_at.pop(session, None)
        self._used_at[session] = time.monotonic()

    def next_due(self) -> float | None:
        """When (monotonic) `make_due` has something to do."""
        if not self._used_at:
            return None
        unused = 0.0 if len(self._used_at) > _LIMIT else min(self._used_at.values()) + _UNUSED_S
        return min([unused, *self._wanting.values()])

    def make_due(self) -> None:
        """Make what is wanted by now, and drop what nobody has used."""
        now = time.monotonic()
        for name, due in list(self._wanting.items()):
            if now >= due:
                del self._wanting[name]
                if name in self._sessions and name in self._used_at:
                    self._make(self._sessions[name], now)
        for name, at in list(self._used_at.items()):
            if now >= at + _UNUSED_S or len(self._used_at) > _LIMIT:
                self._let_rest(name)

    def _make(self, session: Session, now: float) -> None:
        if session.paused:
            return
        wanted, ready_at = self._wanted(session), self._ready_at(session)
        try:
            if wanted and len(session.warm) >= wanted:
                self._spawner.make_ready()
            elif session.standby is None:
                self._make_standby(session)
            elif wanted and now < ready_at:
                self._wanting[session.name] = ready_at
                return
            elif wanted:
                self._make_warm(session)
        except OSError:
            return
        if wanted > len(session.warm):
            self._wanting[session.name] = max(now, ready_at) + _QUIET_S

    def _ready_at(self, session: Session) -> float:
        """When (monotonic) it may have another warm one."""
        plan = self._plans.get(session.name)
        return self._quiet_at if plan is None else max(self._quiet_at, plan.retry_at)

    def _make_standby(self, session: Session) -> None:
        session.standby = self._spawner.make_standby(session)
        self._spawner.make_ready()

    def _wanted(self, session: Session) -> int:
        """How many warm ones it is to have."""
        plan = self._plans.get(session.name)
        if plan is None or not plan.template.shim or not plan.template.warm:
            return 0
        short = self._pressure.is_short(session.name, self._spawner.session_cgroup(session.name))
        return 0 if short else plan.template.warm

    def _make_warm(self, session: Session) -> None:
        plan = self._plans[session.name]
        self._reaper.expect()
        bwrap = self._spawner.make_shimmed(plan.template, session)
        sandbox = WarmSandbox(bwrap, plan.walls)
        bwrap.on_news = partial(self._tell, session, plan, sandbox)
        if bwrap.link is not None:
            self._readers.register(bwrap.link.fileno(), bwrap.on_news)
        self._reaper.add(bwrap)
        session.warm.append(sandbox)
        self._pressure.watch(session.name, self._spawner.session_cgroup(session.name))

    # -- what becomes of it -------------------------------------------------------------------------------------

    def _tell(self, session: Session, plan: _Plan, sandbox: WarmSandbox) -> None:
        """News of one that waits or is being built."""
        bwrap = sandbox.bwrap
        if bwrap.link is not None and (bwrap.hear_ready() or bwrap.gone):
            self._readers.unregister(bwrap.link.fileno())
        if bwrap.shim_usage is not None:
            plan.succeeded()
        if bwrap.monitor_status is not None and sandbox in session.warm:
            session.warm.remove(sandbox)
            self._counts["died"] += 1
            if bwrap.shim_usage is None:
                plan.failed()
                self._wanting.setdefault(session.name, plan.retry_at)
        if bwrap.gone:
            self._leaving.get(session.name, set()).discard(bwrap)

    def reaped(self, pid: int) -> None:
        """A child is gone: if it waited (someone killed it), its session has no standby now."""
        for name in self._used_at:
            session = self._sessions.get(name)
            if session is not None and session.standby is not None and session.standby.pid == pid:
                session.standby.dismiss()
                session.standby = None

    def count_died(self) -> None:
        """One has died between being taken and getting its command."""
        self._counts["died"] += 1

    def tree_changed(self, session: str) -> None:
        """What waits in it has another view than a new command would have."""
        if session in self._sessions and self._sessions[session].warm:
            self._drop(self._sessions[session])
            self._wanting.setdefault(session, time.monotonic() + _QUIET_S)

    def turn(self, session: Session, *, paused: bool) -> None:
        """It is about to be frozen, or to go on. Whoever is being born in it for a command is waited for a little."""
        session.paused = paused
        if not paused:
            self.want_now(session.name)
            return
        self._let_rest(session.name)
        group = self._spawner.commands_cgroup(session.name)
        if group is not None:
            self._reaper.wait_born(group, _BORN_S)

    def memory_short(self, name: str | None) -> None:
        """In one session, or in the guest as a whole."""
        for session in list(self._sessions.values()):
            if name in (None, session.name):
                self._drop(session)

    def discard(self, session: Session) -> None:
        """It is closed: end what waits in it, and wait for that a little, since it keeps the session's tree."""
        self._wanting.pop(session.name, None)
        self._plans.pop(session.name, None)
        self._let_rest(session.name)
        self._reaper.wait_gone(list(self._leaving.get(session.name, ())), _END_S)
        self._leaving.pop(session.name, None)

    def end(self) -> None:
        """The launcher ends."""
        for session in list(self._sessions.values()):
            self.discard(session)

    def _let_rest(self, name: str) -> None:
        self._used_at.pop(name, None)
        session = self._sessions.get(name)
        if session is None:
            return
        self._drop(session)
        standby = session.take_standby()
        if standby is not None:
            standby.dismiss()

    def _drop(self, session: Session) -> None:
        for sandbox in session.take_warm():
            sandbox.dismiss()
            self._leaving.setdefault(session.name, set()).add(sandbox.bwrap)
            self._counts["dropped"] += 1
        self._pressure.unwatch(session.name)
