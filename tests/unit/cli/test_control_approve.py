"""`coworkctl approve`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

APPROVAL: dict[str, Any] = {
    "approval": "a1",
    "session": "work",
    "process": "p1",
    "folder": "f",
    "action": "delete",
    "paths": ["x\x1b", b"\xff"],
    "count": 2,
    "waiting": 1,
    "asked_at": 0.0,
    "expires_at": 0.0,
    "revision": 4,
}


@pytest.fixture(autouse=True)
def _approvals(guest: FakeGuest) -> None:
    guest.answers["approval.list"] = lambda _: {"approvals": [APPROVAL]}
    guest.answers["approval.answer"] = lambda _: {"count": 1}


def test_without_one_they_are_listed(ctl: Ctl, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("approve") == 0
    said = capsys.readouterr().out
    assert "a1" in said
    assert "x\\x1b" in said


def test_as_json_nothing_is_lost(ctl: Ctl, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("approve", "--json", "--session", "work") == 0
    assert json.loads(capsys.readouterr().out)["approvals"][0]["paths"] == ["x\x1b", {"$bin": "/w=="}]


def test_an_answer_is_about_what_was_listed(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("approve", "a1", "once") == 0
    assert guest.called("approval.answer") == [{"approval": "a1", "answer": "once", "revision": 4}]
    assert capsys.readouterr().out == "allowed: 1 deletes waited\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a1",), "once, session or deny"),
        (("a2",), "there is no approval 'a2'"),
        (("--watch",), "--watch asks at a terminal"),
        (("a1", "--watch"), "name no approval"),
    ],
)
def test_without_a_terminal_there_is_nobody_to_ask(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert ctl("approve", *words) == 1
    assert said in capsys.readouterr().err
    assert guest.called("approval.answer") == []
