"""The guest's clock over clocks that move when told."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from coworkd.model.calls_boot import SyncClock
from coworkd.model.errors import DiskFailed, InternalError, InvalidParams
from coworkd.services.clock import LATEST, Clock
from coworkd.services.events import EventRing
from coworkd.system.clocks import Clocks

NOW = 1_800_000_000.0


class Machine:
    """Three clocks, and what was done with them, in order."""

    def __init__(self, *, may_set: bool = True) -> None:
        self.now = Clocks(NOW, 100.0, 100.0)
        self.done: list[Any] = []
        self.audit_error: Exception | None = None
        self.set_error: OSError | None = None
        self.reason: str | None = None
        self.events = EventRing()
        self.clock = Clock(
            audit=self,
            events=self.events,
            may_set=may_set,
            on_state=self._tell,
            read=lambda: self.now,
            set_clock=self._set,
        )

    def _tell(self, reason: str | None) -> None:
        self.reason = reason

    def _set(self, seconds: float) -> None:
        if self.set_error is not None:
            raise self.set_error
        self.done.append(("set", seconds))
        self.now = self.now._replace(real=seconds)

    async def record(self, kind: str, fields: Any, /) -> None:
        if self.audit_error is not None:
            raise self.audit_error
        self.done.append((kind, fields["delta_s"], fields["source"]))

    def pass_time(self, seconds: float, *, asleep: float = 0.0, real: float = 0.0) -> None:
        self.now = Clocks(
            self.now.real + seconds + asleep + real, self.now.monotonic + seconds, self.now.boot + seconds + asleep
        )

    def sync(self, ahead: float) -> Any:
        return trio.run(self.clock.sync, SyncClock(time=self.now.real + ahead))

    @property
    def told(self) -> list[bytes]:
        return list(self.events.frames_from(self.events.first))


def test_a_clock_that_is_behind_is_stepped_and_the_step_recorded_first() -> None:
    machine = Machine()
    answer = machine.sync(3600.0)
    assert (answer.offset_s, answer.stepped, answer.reason) == (3600.0, True, "")
    assert machine.done == [("clock.step", 3600.0, "sync_clock"), ("set", NOW + 3600.0)]
    assert b"clock.stepped" in machine.told[0]


@pytest.mark.parametrize("ahead", [0.1, -0.1, 0.0, 0.05])
def test_what_is_near_enough_is_left_alone(ahead: float) -> None:
    machine = Machine()
    machine.now = machine.now._replace(real=1_800_000_000.0)
    answer = trio.run(machine.clock.sync, SyncClock(time=1_800_000_000.0 + ahead * 0.99))
    assert not answer.stepped
    assert machine.done == []


def test_time_never_goes_back_and_that_is_told() -> None:
    machine = Machine()
    answer = machine.sync(-30.0)
    assert not answer.stepped
    assert "never set back" in answer.reason
    assert machine.reason == answer.reason
    assert machine.done == []
    machine.pass_time(5.0)
    machine.sync(0.0)
    assert machine.reason is None


def test_somebody_elses_clock_is_not_set() -> None:
    machine = Machine(may_set=False)
    answer = machine.sync(3600.0)
    assert (answer.stepped, machine.done) == (False, [])
    assert "not coworkd's" in answer.reason


@pytest.mark.parametrize("time", [0.0, -1.0, float("nan"), float("inf"), LATEST + 1.0])
def test_what_is_no_time_is_refused(time: float) -> None:
    machine = Machine()
    with pytest.raises(InvalidParams, match="no time"):
        trio.run(machine.clock.sync, SyncClock(time=time))
    assert machine.done == []


def test_without_a_record_there_is_no_step() -> None:
    machine = Machine()
    machine.audit_error = DiskFailed("full")
    with pytest.raises(DiskFailed):
        machine.sync(3600.0)
    assert machine.done == []


def test_a_kernel_that_refuses_is_told() -> None:
    machine = Machine()
    machine.set_error = PermissionError(1, "Operation not permitted")
    with pytest.raises(InternalError, match="CAP_SYS_TIME"):
        machine.sync(3600.0)
    assert "cannot be set" in str(machine.reason)


@pytest.mark.parametrize("time", [NOW + 60.0, 5.0])
def test_a_hello_with_a_time_keeps_no_host_out(time: float) -> None:
    machine = Machine()
    machine.audit_error = DiskFailed("full")
    trio.run(machine.clock.greeted, time)
    assert machine.done == []


def test_a_sleep_is_told_once_and_is_no_step() -> None:
    machine = Machine()
    machine.pass_time(1.0)
    machine.clock.look()
    assert machine.told == []
    machine.pass_time(1.0, asleep=120.0)
    machine.clock.look()
    machine.clock.look()
    (told,) = machine.told
    assert b"clock.slept" in told


@pytest.mark.parametrize("jump", [50.0, -50.0])
def test_a_clock_that_somebody_else_set_is_told(jump: float) -> None:
    machine = Machine()
    machine.pass_time(1.0, real=jump)
    machine.clock.look()
    (told,) = machine.told
    assert b"clock.stepped" in told
    assert b"unknown" in told


def test_our_own_step_is_no_jump() -> None:
    machine = Machine()
    machine.sync(500.0)
    machine.pass_time(1.0)
    machine.clock.look()
    assert len(machine.told) == 1
