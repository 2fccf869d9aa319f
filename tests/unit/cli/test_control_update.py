"""`coworkctl update …`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

STATUS: dict[str, Any] = {
    "enabled": True,
    "running": "a",
    "version": "9.1",
    "image_version": "1.0",
    "chosen": "a",
    "slots": [
        {"slot": "a", "version": "9.1", "sha256": "x", "contents": ["code"], "status": "committed"},
        {
            "slot": "b",
            "version": "9.2",
            "sha256": "y",
            "contents": ["code"],
            "status": "bad",
            "reason": "it \x1b[2J crashed",
        },
    ],
    "disk": {"device": "/dev/sda", "version": "9.2", "why": "failed_before", "reason": "it crashed"},
}


def test_status_shows_what_runs_and_why_not_the_other(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["update.status"] = lambda _: STATUS
    assert ctl("update", "status") == 0
    said = capsys.readouterr().out
    assert "9.1, slot a" in said
    assert "/dev/sda, 9.2" in said
    assert "committed" in said
    assert "\x1b" not in said


def test_status_as_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["update.status"] = lambda _: STATUS
    assert ctl("--json", "update", "status") == 0
    assert json.loads(capsys.readouterr().out)["chosen"] == "a"


def test_apply_passes_on_what_was_said(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, Any]] = []

    def apply(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        return {"slot": "b", "version": "9.2", "sha256": "y", "restarting": True}

    guest.answers["update.apply"] = apply
    assert ctl("update", "apply", "--again") == 0
    assert asked[0]["again"] is True
    assert "9.2 is in slot b; coworkd restarts into it" in capsys.readouterr().out


def test_rollback_passes_on_what_was_said(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, Any]] = []

    def roll_back(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        return {"slot": "0", "version": "1.0", "restarting": False}

    guest.answers["update.rollback"] = roll_back
    assert ctl("update", "rollback", "0", "--reason", "slow", "--later") == 0
    assert (asked[0]["to"], asked[0]["reason"], asked[0]["restart"]) == ("0", "slow", False)
    assert "back to 1.0 in slot 0; from the next start on" in capsys.readouterr().out
