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
    for name in ("memory.oom.group", "cgroup.subtree_control"):
        (tmp_path / name).touch()
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
    (group / "cgroup.controllers").write_text("io pids hugetlb\n")
    cgroup.enable_controllers(str(group))
    assert (group / "cgroup.subtree_control").read_text() == "+pids +io"


def test_enable_controllers_writes_nothing_where_there_are_none(group: Path) -> None:
    (group / "cgroup.controllers").write_text("\n")
    cgroup.enable_controllers(str(group))
    assert (group / "cgroup.subtree_control").read_text() == ""


def test_create_takes_one_that_is_there(tmp_path: Path) -> None:
    cgroup.create(str(tmp_path / "a"))
    cgroup.create(str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()


def test_events_takes_numbers_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("low 0\noom 5\nx\ny z\n")
    assert cgroup.events(str(tmp_path), "a") == {"low": 0, "oom": 5}
    assert cgroup.events(str(tmp_path), "b") == {}


def test_kill_as_one_needs_a_memory_controller(group: Path) -> None:
    cgroup.kill_as_one(str(group))
    assert (group / "memory.oom.group").read_text() == "1"
    (group / "memory.oom.group").unlink()
    cgroup.kill_as_one(str(group))
    assert not (group / "memory.oom.group").exists()


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


def test_is_frozen_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert not cgroup.is_frozen(str(tmp_path))
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert not cgroup.is_frozen(str(tmp_path))
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert cgroup.is_frozen(str(tmp_path))


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
