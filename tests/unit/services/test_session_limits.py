from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from coworkd.model.calls_limits import SetSessionLimits
from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, Unavailable
from coworkd.model.limits import CgroupLimits
from coworkd.model.policy import LimitsRequest
from coworkd.services.session_limits import merge_limits
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import SessionHouse, open_house


def asked(**limits: int | float) -> SetSessionLimits:
    return SetSessionLimits(session="bob", limits=LimitsRequest(**limits))  # type: ignore[arg-type]  # by name


def say(house: SessionHouse, **limits: int | float) -> None:
    """What policy says from now on."""
    held = structs.replace(house.policies.profile.limits, **limits)
    house.policies.profile = structs.replace(house.policies.profile, limits=held)


@in_trio
async def test_limits_change_under_running_commands(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure(limits=LimitsRequest(pids_max=50))
        house.processes.running["bob"] = 1
        say(house, memory_max_bytes=1600, memory_high_bytes=1200)
        house.policies.narrowed = ("limits.memory_max: so much",)
        done = await house.sessions.set_limits(asked(memory_max=1600))
        assert (done.limits["memory_max_bytes"], done.narrowed, done.warnings) == (1600, house.policies.narrowed, ())
        assert done.usage == house.groups.usage
        told = house.groups.limits["bob", None]
        assert (told.memory_max_bytes, told.memory_high_bytes, told.pids_max) == (1600, 1200, 100)
        assert house.stored()["bob"].limits == LimitsRequest(memory_max=1600, pids_max=50)
        assert house.audit.fields("session.limits")["limits"] == LimitsRequest(memory_max=1600)
        assert house.events.published[-1].name == "session.limits"
        view = await house.sessions.open("bob")
        assert view.own_limits is not None
        assert view.own_limits.memory_max_bytes == 1600


@in_trio
async def test_less_than_is_used_is_said(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        say(house, memory_max_bytes=99)
        [warning] = (await house.sessions.set_limits(asked(memory_max=99))).warnings
        assert "100 bytes of memory are used, 99 may be" in warning


@in_trio
async def test_what_the_kernel_keeps_nobody_to_is_said(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.groups.kept = CgroupLimits()
        [warning] = (await house.sessions.set_limits(asked(pids_max=5, nofile=6))).warnings
        assert warning.startswith("pids_max: ")


@in_trio
async def test_tmp_changes_when_nobody_stands_on_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        before = house.stored()["bob"]
        real = house.policies.effective

        async def effective(name: str | None, limits: LimitsRequest, /) -> object:
            say(house, tmp_max_bytes=limits.tmp_max or 1 << 20)
            return await real(name, limits)

        house.policies.effective = effective  # type: ignore[assignment, method-assign]
        with pytest.raises(InvalidState, match="/tmp"):
            await house.sessions.set_limits(asked(tmp_max=5))
        assert house.stored()["bob"] == before
        house.processes.running.clear()
        assert (await house.sessions.set_limits(asked(tmp_max=5))).usage is None
        assert house.trace[-2:] == ["close bob", "stop bob"]


@in_trio
async def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()["bob"]
        house.audit.full.add("session.limits")
        with pytest.raises(DiskFailed):
            await house.sessions.set_limits(asked(pids_max=5))
        house.audit.full.clear()
        house.groups.error = Unavailable("no")
        with pytest.raises(Unavailable):
            await house.sessions.set_limits(asked(pids_max=5))
        assert house.stored()["bob"] == before
        assert house.groups.limits == {}


@in_trio
async def test_one_that_is_not_open_has_them_when_it_is(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.restart()
        assert (await house.sessions.set_limits(asked(pids_max=5))).usage is None
        assert house.groups.limits == {}
        assert house.stored()["bob"].limits == LimitsRequest(pids_max=5)


def test_what_is_given_lies_over_what_is_known() -> None:
    known = LimitsRequest(memory_max=1, nofile=2)
    assert merge_limits(known, LimitsRequest(memory_max=3)) == LimitsRequest(memory_max=3, nofile=2)
    with pytest.raises(InvalidParams):
        merge_limits(known, LimitsRequest())


@in_trio
async def test_another_policy_is_written_to_open_sessions(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        say(house, memory_max_bytes=1600, memory_high_bytes=1600)
        await house.sessions.refresh()
        assert house.groups.limits["bob", None] == CgroupLimits(
            memory_max_bytes=1600,
            memory_high_bytes=1500,
            swap_max_bytes=0,
            pids_max=100,
            cpu_max=1.0,
            cpu_weight=100,
            io_weight=100,
        )


@in_trio
async def test_limits_that_were_recorded_and_not_written_are_written(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        await house.sessions.set_limits(asked(pids_max=5))
        house.groups.limits["bob", None] = structs.replace(house.groups.limits["bob", None], pids_max=77)
        house.trace.clear()
        await house.restart()
        await house.sessions.reopen()
        assert "limit bob" in house.trace
        assert house.groups.limits["bob", None].pids_max == 100


@in_trio
async def test_limits_that_hold_are_not_written_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        await house.sessions.set_limits(asked(pids_max=5))
        held = house.groups.limits["bob", None]
        house.groups.limits["bob", None] = structs.replace(held, memory_max_bytes=(1 << 30) - 4096, io_weight=None)
        house.trace.clear()
        await house.restart()
        await house.sessions.reopen()
        assert "limit bob" not in house.trace
