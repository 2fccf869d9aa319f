"""`coworkctl session pause|resume|limits|top`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

WORK = {
    "name": "work",
    "uid": 1001,
    "gid": 1001,
    "home": "/sessions/work",
    "state": "ready",
    "profile": "default",
    "created_at": 1.0,
    "folders": [],
    "paused": True,
}
HELD = {
    "memory_max_bytes": 512 << 20,
    "memory_high_bytes": 480 << 20,
    "swap_max_bytes": 0,
    "pids_max": 100,
    "cpu_max": 1.0,
    "cpu_weight": 100,
    "io_weight": 100,
    "tmp_max_bytes": 1,
    "disk_max_bytes": 1,
    "nofile": 64,
    "fsize_max_bytes": 0,
    "cpu_time_s": 0,
    "core_max_bytes": 0,
    "spool_max_bytes": 1 << 20,
    "timeout_s": 0.0,
}
SET = {"limits": HELD, "narrowed": ["limits.memory_max: less"], "warnings": ["it hurts"]}


@pytest.mark.parametrize(("frozen", "said"), [(True, "is paused\n"), (False, "waits in the kernel")])
def test_pause_says_whether_all_stand_still(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], frozen: bool, said: str
) -> None:
    guest.answers["session.pause"] = lambda _: {"session": WORK, "frozen": frozen}
    assert ctl("session", "pause", "work") == 0
    assert guest.called("session.pause")[0]["session"] == "work"
    assert said in capsys.readouterr().out


def test_resume(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.resume"] = lambda _: {"session": WORK, "frozen": False}
    assert ctl("session", "resume", "work") == 0
    assert capsys.readouterr().out == "session work goes on\n"


def test_limits_of_a_session_change(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.set_limits"] = lambda _: SET
    assert ctl("session", "limits", "work", "--memory-max", "512M", "--cpu-max", "0.5", "--swap-max", "0") == 0
    [asked] = guest.called("session.set_limits")
    assert asked["limits"] == {"memory_max": 512 << 20, "cpu_max": 0.5, "swap_max": 0}
    said = capsys.readouterr().out
    assert "narrowed: limits.memory_max: less" in said
    assert "note: it hurts" in said


def test_limits_of_a_command_change(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["process.set_limits"] = lambda _: SET
    assert ctl("session", "limits", "--process", "p1", "--pids-max", "5", "--json") == 0
    [asked] = guest.called("process.set_limits")
    assert (asked["process"], asked["limits"]) == ("p1", {"pids_max": 5})
    assert json.loads(capsys.readouterr().out)["warnings"] == ["it hurts"]


def test_a_command_that_the_kernel_keeps_to_nothing_is_told_so(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["process.set_limits"] = lambda _: {"limits": {}, "narrowed": [], "warnings": ["memory_max: nobody"]}
    assert ctl("session", "limits", "--process", "p1", "--memory-max", "64M") == 0
    assert capsys.readouterr().out == "note: memory_max: nobody\n"


def test_limits_that_hold_are_shown(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    policy: dict[str, Any] = {
        "profile": "default",
        "egress": [],
        "allowances": [],
        "upstream": "direct",
        "egress_limits": {},
        "limits": HELD,
        "narrowed": [],
    }
    guest.answers["session.policy"] = lambda _: policy
    assert ctl("session", "limits", "work") == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (said["memory_max"], said["pids_max"], said["fsize_max"]) == ("512 MiB", "100", "no limit")
    assert (said["swap_max"], said["cpu_max"], said["timeout_s"]) == ("0 bytes", "1.0", "no limit")


@pytest.mark.parametrize("words", [(), ("work", "--process", "p1", "--pids-max", "5"), ("--process", "p1")])
def test_whose_and_which_must_be_said(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert ctl("session", "limits", *words) != 0
    assert guest.called("process.set_limits") == guest.called("session.set_limits") == []


USED = {
    "session": "work",
    "home_bytes": 0,
    "stage_bytes": 0,
    "files": 0,
    "limit_bytes": 0,
    "measured_at": 0.0,
    "idle_since": 0.0,
}
GROUP = {"memory_bytes": 3 << 20, "pids": 4, "cpu_user_s": 1.0, "cpu_system_s": 0.5}


@pytest.mark.parametrize(("options", "rows"), [((), 1), (("--all",), 2)])
def test_top_is_a_table_of_those_that_are_open(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], rows: int
) -> None:
    guest.answers["session.usage"] = lambda _: {"sessions": [{**USED, "group": GROUP}, {**USED, "session": "closed"}]}
    assert ctl("session", "top", *options) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == rows
    assert lines[0].split() == ["work", "3", "MiB", "-", "4", "1.5", "s", "-", "-", "-", "-"]


@pytest.mark.parametrize(("group", "said"), [(GROUP, ""), ({"cpu_user_s": 1.0}, "see coworkctl doctor\n")])
def test_top_says_why_something_is_not_counted(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], group: dict[str, float], said: str
) -> None:
    guest.answers["session.usage"] = lambda _: {"sessions": [{**USED, "group": group}, {**USED, "session": "closed"}]}
    assert ctl("session", "top") == 0
    err = capsys.readouterr().err
    assert err.endswith(said)
    assert bool(err) == bool(said)


def test_top_as_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.usage"] = lambda _: {"sessions": [{**USED, "group": GROUP}]}
    assert ctl("session", "top", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sessions"][0]["group"]["pids"] == 4
