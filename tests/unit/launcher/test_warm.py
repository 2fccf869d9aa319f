from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from coworkd.launcher.shim_usage import NOTHING
from coworkd.launcher.warm import WarmSandbox, walls_of
from coworkd.model.limits import CgroupLimits
from tests.unit.launcher.launcher_room import MONITOR, SPAWN, USAGE, Sandbox

REQUEST = structs.replace(SPAWN, limits=CgroupLimits())


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(shim=True)


def test_it_is_ready_when_its_shim_says_so_and_as_long_as_it_lives(sandbox: Sandbox) -> None:
    warm = WarmSandbox(sandbox.bwrap, walls_of(REQUEST))
    assert not warm.ready
    sandbox.bwrap.shim_usage = NOTHING
    assert warm.ready
    sandbox.bwrap.payload_status = 9
    assert not warm.ready
    sandbox.bwrap.payload_status = None
    sandbox.bwrap.learn_reaped(MONITOR, 0, USAGE)
    assert not warm.ready
    sandbox.close()


@pytest.mark.parametrize(
    ("change", "suits"),
    [
        ({"argv": (b"x",), "environment": (b"A=b",), "cwd": b"/tmp", "stdin": False}, True),
        ({"limits": CgroupLimits(memory_max_bytes=32 << 20)}, True),
        ({"limits": CgroupLimits(memory_max_bytes=31 << 20)}, False),
        ({"limits": CgroupLimits(pids_max=3)}, True),
        ({"limits": CgroupLimits(pids_max=2)}, False),
        ({"bwrap_args": ()}, False),
        ({"filters": ("c" * 64, "a" * 64)}, False),
    ],
)
def test_it_suits_what_would_have_the_same_walls(sandbox: Sandbox, change: dict[str, object], suits: bool) -> None:
    warm = WarmSandbox(sandbox.bwrap, walls_of(REQUEST))
    assert warm.suits(structs.replace(REQUEST, **change)) is suits
    sandbox.close()


def test_the_commands_limits_are_set_before_it_is_the_commands(tmp_path: Path) -> None:
    (tmp_path / "pids.max").touch()
    sandbox = Sandbox(shim=True, cgroup=str(tmp_path))
    assert WarmSandbox(sandbox.bwrap, ()).take(CgroupLimits(pids_max=7)) is sandbox.bwrap
    assert (tmp_path / "pids.max").read_text() == "7"
    sandbox.close()
