"""`coworkctl doctor folder` and `doctor denied`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest, Fault

FOLDER = {
    "name": "work",
    "source": "/Users/me/work",
    "mode": "ro",
    "required": False,
    "state": "mounted",
    "path": "/sessions/s/mnt/work",
}


def test_a_folder_is_looked_at_with_the_sessions_rights(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("NOT_FOUND", "is not there")

    guest.answers["folder.list"] = lambda _: {"folders": [FOLDER]}
    guest.answers["file.stat"] = refuse
    guest.answers["audit.query"] = lambda _: {"records": []}
    assert ctl("doctor", "folder", "s", "work/a") == 1
    assert guest.called("file.stat") == [{"session": "s", "path": "/sessions/s/mnt/work/a"}]
    said = capsys.readouterr().out
    assert "read-only" in said
    assert "is not there" in said


def test_a_folder_that_is_not_granted_is_not_looked_at(ctl: Ctl, guest: FakeGuest) -> None:
    guest.answers["folder.list"] = lambda _: {"folders": []}
    assert ctl("doctor", "folder", "s", "/x") == 1
    assert guest.called("file.stat") == []


def test_denials_are_asked_for_by_session_and_told(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {
        "kind": "process.denied",
        "at": 1.0,
        "session": "s",
        "argv": ["x"],
        "message": "too much",
        "rule": "cpu_max",
    }
    guest.answers["audit.query"] = lambda _: {"records": [record]}
    assert ctl("--json", "doctor", "denied", "s") == 0
    assert guest.called("audit.query")[0]["session"] == "s"
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["check"] for one in findings] == ["ceiling", "system calls"]
