"""`coworkctl tool …`."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

SHA = "ab" * 32
TOOL = {
    "name": "agent",
    "version": "1.0",
    "sha256": SHA,
    "size_bytes": 10,
    "installed_at": 1.0,
    "commands": ["agent", "agent-x"],
    "current": True,
}


def test_install_asks_for_the_digest_and_says_what_is_in_use(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["tool.install"] = lambda _: {"tool": TOOL, "changed": True, "pruned": ["0.1"]}
    words = ("tool", "install", "agent", "1.0", "tools/agent", "--sha256", SHA, "--command", "agent=bin/a")
    assert ctl(*words) == 0
    asked = guest.called("tool.install")[0]
    assert (asked["source"], asked["sha256"], asked["commands"]) == ("tools/agent", SHA, {"agent": "bin/a"})
    assert capsys.readouterr().out.splitlines() == [
        "agent 1.0 is in use: agent, agent-x",
        "agent 0.1 was removed, to keep no more than the configured number",
    ]


def test_install_switches_without_a_source_or_leaves_what_is_in_use(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["tool.install"] = lambda _: {"tool": {**TOOL, "current": False}, "changed": True}
    assert ctl("tool", "install", "agent", "1.0", "--sha256", SHA, "--no-switch") == 0
    asked = guest.called("tool.install")[0]
    assert "source" not in asked
    assert asked["switch"] is False
    assert "installed, not in use" in capsys.readouterr().out


def test_list_marks_what_is_in_use(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["tool.list"] = lambda _: {"tools": [TOOL, {**TOOL, "version": "0.9", "current": False}]}
    assert ctl("tool", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [("*" in line, "agent" in line) for line in lines] == [(False, False), (True, True), (False, True)]


def test_list_is_json_where_it_is_asked_for(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["tool.list"] = lambda _: {"tools": [TOOL]}
    assert ctl("--json", "tool", "list") == 0
    assert json.loads(capsys.readouterr().out) == {"tools": [TOOL]}


def test_rm_names_what_is_gone(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["tool.remove"] = lambda _: {"removed": ["1.0", "0.9"]}
    assert ctl("tool", "rm", "agent") == 0
    assert "version" not in guest.called("tool.remove")[0]
    assert capsys.readouterr().out == "agent is removed: 1.0, 0.9\n"
