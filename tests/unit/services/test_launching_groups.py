"""The cgroups' side of the launcher's client, against answers that the test makes up."""

from __future__ import annotations

import errno
import os

import pytest

from coworkd.model import launch
from coworkd.model.errors import InvalidState, Unavailable
from coworkd.model.limits import CgroupLimits, GroupUsage
from coworkd.model.ports import GroupsPort, GroupState
from coworkd.services.launching_groups import LauncherGroups
from tests.unit.services.process_house import in_trio
from tests.unit.services.test_launching_folders import FakeAsk

USAGE, LIMITS = GroupUsage(pids=3), CgroupLimits(pids_max=9)


def groups(ask: FakeAsk) -> GroupsPort:
    return LauncherGroups(ask)


@in_trio
async def test_limits_are_answered_with_what_holds() -> None:
    ask = FakeAsk(launch.Measured(id=1, usage=USAGE, limits=LIMITS))
    assert await groups(ask).set_limits("bob", "p1", LIMITS) == GroupState(USAGE, LIMITS)
    assert await groups(ask).measure("bob", None) == GroupState(USAGE, LIMITS)
    assert ask.asked == [
        launch.SetLimits(id=0, session="bob", process="p1", limits=LIMITS),
        launch.Measure(id=0, session="bob", process=None),
    ]


@in_trio
async def test_freezing_tells_how_far_it_is() -> None:
    ask = FakeAsk(launch.Frozen(id=1, frozen=False))
    assert not await groups(ask).freeze("bob", frozen=True)
    assert ask.asked == [launch.Freeze(id=0, session="bob", frozen=True)]


@in_trio
async def test_pressure_comes_as_files_by_kind() -> None:
    ask = FakeAsk(launch.PressureOpened(id=1, kinds=("memory", "io")), 2)
    assert await groups(ask).open_pressure("bob") == dict(zip(("memory", "io"), ask.fds, strict=True))
    for fd in ask.fds:
        os.close(fd)


@in_trio
async def test_files_that_do_not_belong_are_closed() -> None:
    ask = FakeAsk(launch.PressureOpened(id=1, kinds=("memory",)), 2)
    with pytest.raises(Unavailable, match="2 descriptors where 1"):
        await groups(ask).open_pressure("bob")
    assert ask.all_closed()


@pytest.mark.parametrize(
    ("stage", "number", "error"),
    [
        ("session", errno.ESRCH, InvalidState),
        ("process", errno.ESRCH, InvalidState),
        ("cgroup", errno.EOPNOTSUPP, InvalidState),
        ("cgroup", errno.EIO, Unavailable),
        ("busy", errno.EBUSY, Unavailable),
    ],
)
def test_refusals_are_errors_of_ours(stage: str, number: int, error: type[Exception]) -> None:
    @in_trio
    async def check() -> None:
        refused = launch.Refused(id=1, stage=stage, errno=number, message="why")
        with pytest.raises(error, match="why"):
            await groups(FakeAsk(refused)).freeze("bob", frozen=True)

    check()
