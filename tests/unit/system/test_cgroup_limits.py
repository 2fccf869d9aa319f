"""cgroup v2 as files in a temporary directory: this is about words and order, not about the kernel's side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.limits import CgroupLimits, GroupUsage
from coworkd.system import cgroup, cgroup_limits

ALL = CgroupLimits(
    memory_max_bytes=1600,
    memory_high_bytes=1500,
    swap_max_bytes=0,
    pids_max=7,
    cpu_max=1.5,
    cpu_weight=50,
    io_weight=60,
)
FILES = {
    "memory.max": "1600",
    "memory.high": "1500",
    "memory.swap.max": "0",
    "pids.max": "7",
    "cpu.max": "150000 100000",
    "cpu.weight": "50",
    "io.weight": "default 60",
}


@pytest.fixture
def group(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


def test_limit_writes_what_it_is_given(group: Path) -> None:
    cgroup_limits.limit(str(group), ALL)
    assert {name: (group / name).read_text() for name in FILES} == FILES


def test_limit_leaves_the_rest_as_it_is(group: Path) -> None:
    cgroup_limits.limit(str(group), CgroupLimits(pids_max=7))
    assert {name for name in FILES if (group / name).read_text()} == {"pids.max"}


def test_limit_passes_over_a_controller_that_is_not_there(group: Path) -> None:
    (group / "memory.max").unlink()
    cgroup_limits.limit(str(group), CgroupLimits(memory_max_bytes=1, pids_max=3))
    assert not (group / "memory.max").exists()
    assert (group / "pids.max").read_text() == "3"


def test_the_memory_limit_that_may_want_time_is_written_last(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(cgroup, "write", lambda path, text: written.append(os.path.basename(path)))
    cgroup_limits.limit(str(group), ALL)
    assert written[-1] == "memory.max"
    assert sorted(written) == sorted(FILES)


def test_read_limits_tells_what_was_written(group: Path) -> None:
    cgroup_limits.limit(str(group), ALL)
    assert cgroup_limits.read_limits(str(group)) == ALL


def test_read_limits_of_none(group: Path) -> None:
    (group / "memory.max").write_text("max\n")
    (group / "cpu.max").write_text("max 100000\n")
    (group / "pids.max").unlink()
    assert cgroup_limits.read_limits(str(group)) == CgroupLimits()


def test_measure_tells_what_is_counted(tmp_path: Path) -> None:
    for name, text in {
        "memory.current": "10\n",
        "memory.peak": "20\n",
        "memory.swap.current": "0\n",
        "pids.current": "3\n",
        "cpu.stat": "usage_usec 3000000\nuser_usec 2500000\nsystem_usec 500000\nthrottled_usec 100000\n",
        "io.stat": "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=1\n",
        "memory.events": "oom 1\noom_kill 2\n",
        "pids.events": "max 4\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert cgroup_limits.measure(str(tmp_path)) == GroupUsage(
        memory_bytes=10,
        memory_peak_bytes=20,
        swap_bytes=0,
        pids=3,
        cpu_user_s=2.5,
        cpu_system_s=0.5,
        throttled_s=0.1,
        read_bytes=101,
        written_bytes=8,
        oom_kills=2,
        pids_refused=4,
    )


def test_measure_tells_nothing_of_what_is_not_counted(tmp_path: Path) -> None:
    assert cgroup_limits.measure(str(tmp_path)) == GroupUsage()
    with pytest.raises(FileNotFoundError):
        cgroup_limits.measure(str(tmp_path / "gone"))
