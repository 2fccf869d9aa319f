"""Tells when what runs gets in its own way: pressure on memory, processors and disks, and limits that were reached.

    session.pressure {session, kind, level, avg10} · guest.pressure {kind, level, avg10}     level: some, full, and none when it is over
    session.limit {session, process?, limit, value?, refused?} · session.oom {session, process, scope, limit_bytes?, peak_bytes?}

Rules
- The kernel tells of pressure by triggers (`system.pressure`), in each of the sessions opened last and in the guest as a whole. Of one
  kind in one place an event comes when it begins, when it gets worse or better, and else every `AGAIN_S`; and one when it is over.
- `session.limit` is told once a minute for each session. A command that was refused processes by its own limit is told at its end.
- It tells, and changes nothing. Where the kernel has no PSI that is said in `degraded`, and limits are told all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import trio
from msgspec import Struct

from coworkd.model.errors import CoworkError
from coworkd.model.limits import PRESSURE_KINDS, PressureKind
from coworkd.model.ports import EventPort, GroupsPort
from coworkd.model.process import ExitRecord
from coworkd.services.pressure_news import PressureNews
from coworkd.system import pressure

SESSIONS_LIMIT = 128
"""How many sessions are watched: those opened last."""
STALLS_US: dict[PressureKind, int] = {"memory": 200_000, "cpu": 1_400_000, "io": 600_000}
"""Within `pressure.WINDOW_US`: a tenth for memory, which should not be waited for; processors are meant to be used."""
OVER_PERCENT: dict[PressureKind, float] = {"memory": 5.0, "cpu": 35.0, "io": 15.0}
"""It is over when some task waited for no more than this in the last ten seconds."""
FULL_PERCENT = 20.0
"""`full` is told from here on."""
LOOK_S = 5.0
AGAIN_S = 10.0
LIMIT_AGAIN_S = 60.0
_NEAR_PERCENT = 95
_log = logging.getLogger("coworkd.pressure")

Level = str
"""`some`, `full` or `none`."""


class _Place(Struct):
    """One kind of pressure in one place; None is the guest."""

    session: str | None
    kind: PressureKind
    fd: int
    level: Level = "none"
    told_at: float = float("-inf")
    fired_at: float = float("-inf")


class News(Protocol):
    """See `pressure_news.PressureNews`."""

    def add(self, fd: int, /) -> None: ...

    def remove(self, fd: int, /) -> None: ...

    async def serve(self, take: Callable[[int], None], /) -> None: ...

    def close(self) -> None: ...


class PressureWatch:
    """`serve` owns its tasks; `session_turned` and `exited` may be called at any time."""

    def __init__(
        self,
        *,
        groups: GroupsPort,
        events: EventPort,
        runs_in: Callable[[str], int],
        on_state: Callable[[str | None], None],
        open_guest: Callable[[str], int] = pressure.open_guest,
        make_news: Callable[[], News] = PressureNews,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`runs_in` counts a session's commands; `on_state` is told why there is no pressure to be told of, or None."""
        self._groups = groups
        self._events = events
        self._runs_in = runs_in
        self._on_state = on_state
        self._open_guest = open_guest
        self._make_news = make_news
        self._clock = clock
        self._news: News | None = None
        self._nursery: trio.Nursery | None = None
        self._places: dict[int, _Place] = {}
        self._sessions: dict[str, None] = {}
        self._limits_told: dict[str, float] = {}

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns."""
        self._news = self._make_news()
        try:
            self._watch_guest()
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                for session in self._sessions:
                    self._nursery.start_soon(self._watch, session)
                self._nursery.start_soon(self._look)
                await self._news.serve(self._take)
        finally:
            self._nursery = None
            for place in list(self._places.values()):
                self._drop(place)
            self._news.close()
            self._news = None

    def session_turned(self, session: str, *, is_open: bool) -> None:
        """It was opened, or closed."""
        self._sessions.pop(session, None)
        for place in [each for each in self._places.values() if each.session == session]:
            self._drop(place)
        if not is_open:
            return
        self._sessions[session] = None
        if len(self._sessions) > SESSIONS_LIMIT:
            self.session_turned(next(iter(self._sessions)), is_open=False)
        if self._nursery is not None:
            self._nursery.start_soon(self._watch, session)

    def averages(self) -> dict[str, float]:
        """How much of the last ten seconds some task of the guest waited, in per cent, by kind; empty where nothing is watched."""
        found: dict[str, float] = {}
        for place in self._places.values():
            if place.session is None:
                with contextlib.suppress(OSError):
                    found[place.kind] = pressure.read_averages(place.fd).get("some", 0.0)
        return found

    def exited(self, record: ExitRecord, /) -> None:
        """See `ports.ExitListener`."""
        told = {"session": record.session, "process": record.process}
        end = record.exit
        if end.reason == "oom":
            sizes = {"limit_bytes": end.limit_bytes, "peak_bytes": end.peak_bytes}
            known = {name: size for name, size in sizes.items() if size is not None}
            self._events.publish("session.oom", {**told, "scope": end.scope or "guest", **known})
        if end.pids_refused:
            self._tell_limit({**told, "limit": "pids_max", "refused": end.pids_refused})

    # -- pressure -----------------------------------------------------------------------------------------------

    def _watch_guest(self) -> None:
        fds: dict[PressureKind, int] = {}
        try:
            for kind in PRESSURE_KINDS:
                fds[kind] = self._open_guest(kind)
        except OSError as error:
            self._on_state(f"the kernel tells of no pressure (PSI): {error.strerror}")
        else:
            self._on_state(None)
        self._add(None, fds)

    async def _watch(self, session: str) -> None:
        try:
            fds = await self._groups.open_pressure(session)
        except CoworkError as error:  # it was closed meanwhile, or there is no cgroup v2
            _log.info("of session %s no pressure is told: %s", session, error.message)
            return
        if session in self._sessions and not any(place.session == session for place in self._places.values()):
            self._add(session, fds)
        else:
            for fd in fds.values():
                os.close(fd)

    def _add(self, session: str | None, fds: dict[PressureKind, int]) -> None:
        for kind, fd in fds.items():
            try:
                pressure.arm(fd, STALLS_US[kind])
                self._watched().add(fd)
            except OSError as error:  # EOPNOTSUPP where PSI is switched off
                _log.warning("of %s no pressure on %s is told: %s", session or "the guest", kind, error.strerror)
                os.close(fd)
            else:
                self._places[fd] = _Place(session=session, kind=kind, fd=fd)

    def _take(self, fd: int) -> None:
        place = self._places.get(fd)
        if place is not None:
            place.fired_at = self._clock()
            self._judge(place)

    def _judge(self, place: _Place) -> None:
        try:
            averages = pressure.read_averages(place.fd)
        except OSError:  # its cgroup has gone
            self._drop(place)
            return
        now = self._clock()
        level = _level_of(place, averages, now)
        if level == place.level and (level == "none" or now - place.told_at < AGAIN_S):
            return
        place.level, place.told_at = level, now
        told: dict[str, Any] = {} if place.session is None else {"session": place.session}
        told.update(kind=place.kind, level=level, avg10=averages.get("full" if level == "full" else "some", 0.0))
        self._events.publish("guest.pressure" if place.session is None else "session.pressure", told)

    def _drop(self, place: _Place) -> None:
        del self._places[place.fd]
        self._watched().remove(place.fd)
        os.close(place.fd)

    def _watched(self) -> News:
        assert self._news is not None  # only while `serve` runs are there places
        return self._news

    # -- on a timer: what is over, and who is at a limit --------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_S)
            for place in list(self._places.values()):
                if place.level != "none":
                    self._judge(place)
            for session in [name for name in self._sessions if self._runs_in(name)]:
                await self._look_at_limits(session)

    async def _look_at_limits(self, session: str) -> None:
        try:
            state = await self._groups.measure(session, None)
        except CoworkError:  # closed meanwhile
            return
        pids, most = state.usage.pids, state.limits.pids_max
        if pids is not None and most is not None and pids * 100 >= most * _NEAR_PERCENT:
            self._tell_limit({"session": session, "limit": "pids_max", "value": most})

    def _tell_limit(self, told: dict[str, Any]) -> None:
        now, session = self._clock(), told["session"]
        if now - self._limits_told.get(session, float("-inf")) < LIMIT_AGAIN_S:
            return
        self._limits_told = {name: at for name, at in self._limits_told.items() if now - at < LIMIT_AGAIN_S}
        self._limits_told[session] = now
        self._events.publish("session.limit", told)


def _level_of(place: _Place, averages: dict[str, float], now: float) -> Level:
    if now - place.fired_at > LOOK_S and averages.get("some", 0.0) <= OVER_PERCENT[place.kind]:
        return "none"
    return "full" if averages.get("full", 0.0) >= FULL_PERCENT else "some"
