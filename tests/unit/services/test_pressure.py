from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from coworkd.model.limits import CgroupLimits, GroupUsage, PressureKind
from coworkd.model.process import Exit, ExitRecord
from coworkd.services import pressure as service
from coworkd.services.pressure import PressureWatch
from coworkd.system import pressure
from tests.unit.services.fake_groups import FakeGroups
from tests.unit.services.process_house import FakeEvents, in_trio, jump, settle


class Place:
    """One pressure file: what the service reads of it is `averages`, None once its cgroup has gone."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("pressure")
        self.averages: dict[str, float] | None = {}

    def open(self) -> int:
        return os.dup(self._fd)

    @property
    def inode(self) -> int:
        return os.fstat(self._fd).st_ino

    def close(self) -> None:
        os.close(self._fd)


class FakeNews:
    """What a test has the kernel tell (`fire`); as `PressureNews`."""

    def __init__(self) -> None:
        self._watched: set[int] = set()
        self._take: Callable[[int], None] | None = None

    def add(self, fd: int) -> None:
        self._watched.add(fd)

    def remove(self, fd: int) -> None:
        self._watched.remove(fd)

    async def serve(self, take: Callable[[int], None]) -> None:
        self._take = take
        await trio.sleep_forever()

    def close(self) -> None:
        assert not self._watched

    def fire(self, inode: int) -> None:
        assert self._take is not None
        for fd in [each for each in self._watched if os.fstat(each).st_ino == inode]:
            self._take(fd)


class Room:
    """The service, with a place for the guest's memory and one for that of the session bob."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.guest, self.bob = Place(), Place()
        self.groups, self.events, self.news = FakeGroups(), FakeEvents(), FakeNews()
        self.running = {"bob": 1}
        self.states: list[str | None] = []
        self.has_psi = True
        self.watch = PressureWatch(
            groups=self.groups,
            events=self.events,
            runs_in=lambda session: self.running.get(session, 0),
            on_state=self.states.append,
            open_guest=self.open_guest,
            make_news=lambda: self.news,
            clock=trio.current_time,
        )
        monkeypatch.setattr(pressure, "arm", lambda fd, stall_us: None)
        monkeypatch.setattr(pressure, "read_averages", self.read)

    def open_guest(self, kind: str) -> int:
        if not self.has_psi:
            raise FileNotFoundError(2, "No such file or directory")
        return self.guest.open() if kind == "memory" else os.memfd_create(kind)

    def read(self, fd: int) -> dict[str, float]:
        averages = (self.bob if os.fstat(fd).st_ino == self.bob.inode else self.guest).averages
        if averages is None:
            raise OSError(errno.ENODEV, "No such device")
        return averages

    def fire(self, place: Place, some: float, full: float = 0.0) -> None:
        place.averages = {"some": some, "full": full}
        self.news.fire(place.inode)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [dict(event.params) for event in self.events.published if event.name == name]


@asynccontextmanager
async def open_room(monkeypatch: pytest.MonkeyPatch, *, has_psi: bool = True) -> AsyncIterator[Room]:
    before = len(os.listdir("/proc/self/fd"))
    room = Room(monkeypatch)
    room.has_psi = has_psi
    kinds: dict[PressureKind, int] = {"memory": room.bob.open()}
    room.groups.pipes["bob"] = kinds
    async with trio.open_nursery() as nursery:
        await nursery.start(room.watch.serve)
        room.watch.session_turned("bob", is_open=True)
        await settle()
        yield room
        nursery.cancel_scope.cancel()
    os.close(kinds["memory"])
    room.bob.close()
    room.guest.close()
    assert len(os.listdir("/proc/self/fd")) == before


@in_trio
async def test_pressure_is_told_when_it_begins_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.fire(room.bob, 12.5)
        assert room.told("session.pressure") == [{"session": "bob", "kind": "memory", "level": "some", "avg10": 12.5}]
        room.bob.averages = {"some": 1.0}
        jump(service.LOOK_S + 1)
        await settle()
        jump(service.LOOK_S + 1)
        await settle()
        assert [event["level"] for event in room.told("session.pressure")] == ["some", "none"]


@in_trio
async def test_it_is_not_told_again_and_again_but_when_it_gets_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        for some, full in ((12.0, 0.0), (13.0, 0.0), (80.0, 40.0), (90.0, 50.0)):
            room.fire(room.bob, some, full)
        assert [event["level"] for event in room.told("session.pressure")] == ["some", "full"]
        assert room.told("session.pressure")[1]["avg10"] == 40.0
        jump(service.AGAIN_S)
        room.fire(room.bob, 90.0, 60.0)
        assert room.told("session.pressure")[2]["avg10"] == 60.0


@in_trio
async def test_the_guests_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.fire(room.guest, 30.0)
        assert room.told("guest.pressure") == [{"kind": "memory", "level": "some", "avg10": 30.0}]
        assert room.states == [None]


@in_trio
async def test_averages_are_the_guests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.guest.averages = {"some": 30.0, "full": 1.0}
        room.bob.averages = {"some": 99.0}
        assert room.watch.averages()["memory"] == 30.0
        assert 99.0 not in room.watch.averages().values()
    assert room.watch.averages() == {}


@in_trio
async def test_a_session_that_is_closed_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.watch.session_turned("bob", is_open=False)
        room.fire(room.bob, 50.0)
        assert room.told("session.pressure") == []


@in_trio
async def test_a_file_whose_cgroup_has_gone_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.bob.averages = None
        room.news.fire(room.bob.inode)
        room.fire(room.bob, 50.0)
        assert room.told("session.pressure") == []
        room.fire(room.guest, 50.0)
        assert len(room.told("guest.pressure")) == 1


@in_trio
async def test_nothing_is_told_that_no_trigger_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.bob.averages = {"some": 99.0, "full": 99.0}
        jump(service.LOOK_S + 1)
        await settle()
        assert room.told("session.pressure") == []


@in_trio
async def test_those_opened_last_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SESSIONS_LIMIT", 2)
    async with open_room(monkeypatch) as room:
        for name in ("eve", "fay"):
            room.watch.session_turned(name, is_open=True)
        room.fire(room.bob, 50.0)
        assert room.told("session.pressure") == []


@in_trio
async def test_a_kernel_without_it_is_told_and_limits_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch, has_psi=False) as room:
        assert "PSI" in str(room.states[0])
        room.groups.usage = GroupUsage(pids=64)
        room.groups.limits["bob", None] = CgroupLimits(pids_max=64)
        jump(service.LOOK_S)
        await settle()
        assert room.told("session.limit") == [{"session": "bob", "limit": "pids_max", "value": 64}]


@in_trio
async def test_a_limit_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.groups.usage = GroupUsage(pids=64)
        room.groups.limits["bob", None] = CgroupLimits(pids_max=64)
        for _ in range(11):
            jump(service.LOOK_S)
            await settle()
        assert len(room.told("session.limit")) == 1
        for _ in range(3):
            jump(service.LOOK_S)
            await settle()
        assert len(room.told("session.limit")) == 2


@in_trio
async def test_nobody_looks_at_sessions_without_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.groups.usage = GroupUsage(pids=64)
        room.groups.limits["bob", None] = CgroupLimits(pids_max=64)
        room.running.clear()
        jump(service.LOOK_S)
        await settle()
        assert room.told("session.limit") == []


def ended(**fields: Any) -> ExitRecord:
    end = Exit(**{"code": None, "signal": "KILL", "reason": "oom", **fields})
    return ExitRecord(
        process="p1",
        session="bob",
        exit=end,
        output="complete",
        bytes={},
        rusage=None,
        started_at=1.0,
        ended_at=2.0,
    )


@in_trio
async def test_an_end_by_a_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_room(monkeypatch) as room:
        room.watch.exited(ended(scope="session", limit_bytes=9, peak_bytes=8))
        room.watch.exited(ended(reason="exited", code=0, signal=None, pids_refused=3))
        room.watch.exited(ended(reason="killed"))
        assert room.told("session.oom") == [
            {"session": "bob", "process": "p1", "scope": "session", "limit_bytes": 9, "peak_bytes": 8}
        ]
        assert room.told("session.limit") == [{"session": "bob", "process": "p1", "limit": "pids_max", "refused": 3}]
