"""`coworkctl session usage|prune|retention`."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

USAGE = {
    "session": "work",
    "home_bytes": 3 << 20,
    "stage_bytes": 0,
    "files": 12,
    "limit_bytes": 5 << 30,
    "measured_at": 5.0,
    "idle_since": 4.0,
}


def test_usage_is_a_table(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    never = {**USAGE, "session": "new", "measured_at": 0.0, "complete": False, "limit_bytes": 0}
    part = {**USAGE, "session": "part", "complete": False}
    guest.answers["session.usage"] = lambda _: {"sessions": [USAGE, never, part]}
    assert ctl("session", "usage") == 0
    assert guest.called("session.usage") == [{}]
    _, work, new, partly = capsys.readouterr().out.splitlines()
    assert work.split()[:7] == ["work", "3", "MiB", "0", "bytes", "12", "5"]
    assert new.split()[:5] == ["new", "-", "-", "-", "none"]
    assert new.endswith("never")
    assert "≥ 3 MiB" in partly


def test_usage_of_one_and_as_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.usage"] = lambda _: {"sessions": [USAGE]}
    assert ctl("session", "usage", "work", "--json") == 0
    assert guest.called("session.usage") == [{"session": "work"}]
    assert json.loads(capsys.readouterr().out)["sessions"][0]["files"] == 12


def test_prune_tells_what_went(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"session": "work", "path": b".cache/\xff\x1b[2J", "bytes": 5 << 20, "files": 7}
    guest.answers["session.prune"] = lambda _: {"freed_bytes": 5 << 20, "files": 7, "entries": [entry], "left_out": 3}
    assert ctl("session", "prune", "work", "--what", "caches", "--older-than", "2d", "--dry-run") == 0
    (asked,) = guest.called("session.prune")
    assert (asked["session"], asked["what"], asked["older_than_s"], asked["dry_run"]) == (
        "work",
        ["caches"],
        172_800.0,
        True,
    )
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "and 3 more" in said
    assert said.splitlines()[-1] == "5 MiB in 7 files would be freed"


def test_a_time_that_is_none_is_refused(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("session", "prune", "--older-than", "soon") != 0
    assert "--older-than 'soon'" in capsys.readouterr().err
    assert guest.called("session.prune") == []


def test_retention_tells_who_goes_and_why(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"session": "old", "reason": "idle for 40 days", "bytes": 1 << 20}
    rows = [named, {**named, "session": "soon", "goes_at": 9.0}, {**named, "session": "gone", "deleted": True}]
    guest.answers["session.retention"] = lambda _: {"entries": rows}
    assert ctl("session", "retention", "--apply") == 0
    assert guest.called("session.retention")[-1]["dry_run"] is False
    said = capsys.readouterr().out
    assert "named" in said
    assert "is deleted" in said
    assert "idle for 40 days" in said


def test_a_policy_that_names_nobody_says_so(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.retention"] = lambda _: {"entries": []}
    assert ctl("session", "retention") == 0
    assert "names no session" in capsys.readouterr().out
