"""cgroup v2 as files in a temporary directory: this is about words and order, not about the kernel's side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.system import cgroup

MOUNTS = """\
22 28 0:20 / /proc rw - proc proc rw
30 22 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 22 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    for name in ("memory.max", "memory.high", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"):
        (tmp_path / name).touch()
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_find_root_finds_version_two_only() -> None:
    assert cgroup.find_root(MOUNTS) == "/sys/fs/cgroup/unified"
    assert cgroup.find_root(MOUNTS.replace("cgroup2 cgroup2", "tmpfs tmpfs")) is None
    assert cgroup.find_root("") is None


def test_choose_own_is_below_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_read", lambda path: MOUNTS)
    assert cgroup.choose_own("coworkd-1") == "/sys/fs/cgroup/unified/coworkd-1"
    monkeypatch.setattr(cgroup, "_read", lambda path: "")
    assert cgroup.choose_own("coworkd-1") is None


def test_missing_controllers_names_what_is_not_there(group: Path) -> None:
    assert cgroup.missing_controllers(str(group)) == ()
    (group / "cgroup.controllers").write_text("cpu\n")
    assert cgroup.missing_controllers(str(group)) == ("memory", "pids")


def test_enable_controllers_gives_children_what_there_is(group: Path) -> None:
    (group / "cgroup.controllers").write_text("io pids\n")
    cgroup.enable_controllers(str(group))
    assert (group / "cgroup.subtree_control").read_text() == "+pids"


def test_enable_controllers_writes_nothing_where_there_are_none(group: Path) -> None:
    (group / "cgroup.controllers").write_text("\n")
    cgroup.enable_controllers(str(group))
    assert (group / "cgroup.subtree_control").read_text() == ""


def test_create_takes_one_that_is_there(tmp_path: Path) -> None:
    cgroup.create(str(tmp_path / "a"))
    cgroup.create(str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()


def test_limit_writes_every_bound_and_no_swap(group: Path) -> None:
    cgroup.limit(str(group), memory_max_bytes=1600, pids_max=7, cpu_max=1.5)
    wanted = {
        "memory.max": "1600",
        "memory.high": "1500",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "7",
        "cpu.max": "150000 100000",
    }
    assert {name: (group / name).read_text() for name in wanted} == wanted


def test_limit_leaves_the_cpu_to_the_parent(group: Path) -> None:
    cgroup.limit(str(group), memory_max_bytes=1, pids_max=1, cpu_max=None)
    assert (group / "cpu.max").read_text() == ""


def test_limit_passes_over_a_controller_that_is_not_there(group: Path) -> None:
    (group / "memory.max").unlink()
    cgroup.limit(str(group), memory_max_bytes=1, pids_max=3, cpu_max=None)
    assert not (group / "memory.max").exists()
    assert (group / "pids.max").read_text() == "3"


def test_kill_says_whether_the_kernel_could(tmp_path: Path) -> None:
    assert not cgroup.kill(str(tmp_path))
    (tmp_path / "cgroup.kill").touch()
    assert cgroup.kill(str(tmp_path))
    assert (tmp_path / "cgroup.kill").read_text() == "1"


@pytest.mark.parametrize(("frozen", "word"), [(True, "1"), (False, "0")])
def test_freeze_stops_and_continues(tmp_path: Path, frozen: bool, word: str) -> None:
    (tmp_path / "cgroup.freeze").touch()
    cgroup.freeze(str(tmp_path), frozen)
    assert (tmp_path / "cgroup.freeze").read_text() == word


def test_oom_kills_counts_kills_and_not_ooms(tmp_path: Path) -> None:
    assert cgroup.oom_kills(str(tmp_path)) == 0
    (tmp_path / "memory.events").write_text("low 0\nmax 9\noom 5\noom_kill 2\noom_group_kill 1\n")
    assert cgroup.oom_kills(str(tmp_path)) == 2


def test_remove_takes_the_children_first(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert cgroup.remove(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_remove_of_what_is_gone_is_done(tmp_path: Path) -> None:
    assert cgroup.remove(str(tmp_path / "a"))


def test_remove_says_when_something_still_lives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "process").touch()
    assert not cgroup.remove(str(tmp_path / "a"), wait_s=0.005)
    os.unlink(tmp_path / "a" / "process")
    assert cgroup.remove(str(tmp_path / "a"))


def test_parse_own_reads_the_line_of_version_two() -> None:
    assert cgroup.parse_own("4:memory:/a\n0::/coworkd.slice/x.service\n") == "/coworkd.slice/x.service"
    assert cgroup.parse_own("4:memory:/a\n") is None


@pytest.mark.parametrize("place", ["/x.service", "/x.service/supervisor"])
def test_a_delegated_cgroup_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    own = tmp_path / "x.service"
    (own / "supervisor").mkdir(parents=True)
    (own / "supervisor" / "cgroup.procs").touch()
    (own / "cgroup.subtree_control").touch()
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    texts = {
        "/proc/self/mountinfo": f"1 2 0:3 / {tmp_path} rw - cgroup2 cgroup2 rw\n",
        "/proc/self/cgroup": f"0::{place}\n",
    }
    really_read = cgroup._read
    monkeypatch.setattr(cgroup, "_read", lambda path: texts.get(path) or really_read(path))
    assert cgroup.claim_delegated() == str(own / "sessions")
    assert (own / "supervisor" / "cgroup.procs").read_text() == "0"
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
