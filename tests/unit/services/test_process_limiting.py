from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec import structs

from coworkd.model.calls import ProcessName
from coworkd.model.calls_limits import SetProcessLimits
from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, Unavailable
from coworkd.model.limits import CgroupLimits
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import ProcessInfo
from coworkd.model.session import SessionView
from coworkd.services.process_limiting import ProcessLimiting, add_usage
from tests.unit.sandbox.spawn_room import SESSION
from tests.unit.services.fake_groups import FakeGroups
from tests.unit.services.process_house import FakeAudit, FakePolicies, in_trio

INFO = ProcessInfo(process="p1", session="bob", argv=(), state="running", pid=7, started_at=1.0, streams={})


class Sessions:
    """Implements `ports.SessionDirectory` with one session."""

    view = structs.replace(SESSION, limits=LimitsRequest(pids_max=50))

    async def open(self, name: str, /) -> SessionView:
        await trio.lowlevel.checkpoint()
        return self.view

    async def open_for_command(self, name: str, /) -> SessionView:
        raise AssertionError("no command begins")


class Room:
    """The service and everything around it."""

    def __init__(self) -> None:
        self.info = INFO
        self.groups = FakeGroups()
        self.policies = FakePolicies()
        self.audit = FakeAudit()
        self.limiting = ProcessLimiting(
            get=self.get, groups=self.groups, sessions=Sessions(), policies=self.policies, audit=self.audit
        )

    async def get(self, params: ProcessName) -> ProcessInfo:
        await trio.lowlevel.checkpoint()
        return self.info

    async def set(self, **limits: Any) -> Any:
        return await self.limiting.set_limits(SetProcessLimits(process="p1", limits=LimitsRequest(**limits)))


@in_trio
async def test_what_is_asked_is_written_and_nothing_else() -> None:
    room = Room()
    done = await room.set(memory_max=1)
    assert room.groups.limits == {("bob", "p1"): CgroupLimits(memory_max_bytes=1, memory_high_bytes=1)}
    assert done.limits == {"memory_max_bytes": 1, "memory_high_bytes": 1}
    assert done.narrowed == ("from the policy",)
    assert "100 bytes of memory are used" in done.warnings[0]
    assert room.audit.fields("process.limits")["process"] == "p1"


@in_trio
async def test_a_command_gets_no_more_than_its_session() -> None:
    room = Room()
    done = await room.set(pids_max=60)
    assert room.policies.asked == [("default", LimitsRequest(pids_max=50))]
    assert "limits.pids_max: 60 was asked, the session has 50" in done.narrowed
    assert done.warnings == ()


@in_trio
@pytest.mark.parametrize("limits", [{}, {"nofile": 7}, {"memory_max": 1, "tmp_max": 5}])
async def test_what_no_running_command_can_be_given_is_refused(limits: dict[str, int]) -> None:
    room = Room()
    with pytest.raises(InvalidParams):
        await room.set(**limits)
    assert room.audit.records == []


@in_trio
async def test_what_the_kernel_keeps_nobody_to_is_said() -> None:
    room = Room()
    room.groups.kept = CgroupLimits()
    done = await room.set(cpu_max=0.5)
    assert done.limits == {}
    assert done.warnings[0].startswith("cpu_max: ")


@in_trio
async def test_one_that_has_ended_has_no_limits() -> None:
    room = Room()
    room.info = structs.replace(INFO, state="exited")
    with pytest.raises(InvalidState):
        await room.set(pids_max=5)
    assert room.groups.limits == {}


@in_trio
async def test_recorded_before_it_is_done() -> None:
    room = Room()
    room.audit.full.add("process.limits")
    with pytest.raises(DiskFailed):
        await room.set(pids_max=5)
    assert room.groups.limits == {}


@in_trio
async def test_what_it_takes_is_told_while_it_runs() -> None:
    groups = FakeGroups()
    assert (await add_usage(groups, INFO)).usage == groups.usage
    ended = structs.replace(INFO, state="exited")
    assert await add_usage(groups, ended) == ended
    groups.error = Unavailable("gone")
    assert await add_usage(groups, INFO) == INFO
