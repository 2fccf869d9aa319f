"""`coworkctl session …` and the options of sessions."""

from __future__ import annotations

import json

import pytest

from coworkd.cli.control_sessions import parse_env
from coworkd.model.errors import InvalidParams
from tests.unit.cli.conftest import SESSION, Ctl
from tests.unit.client.conftest import FakeGuest


def test_env_words() -> None:
    assert parse_env(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    assert parse_env(None) is None


@pytest.mark.parametrize("word", ["A", "=x", ""])
def test_env_without_a_value_or_name_is_refused(word: str) -> None:
    with pytest.raises(InvalidParams, match="NAME=VALUE"):
        parse_env([word])


def test_ensure_sends_its_options_and_tells_the_result(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["session.ensure"] = lambda _: {
        "session": SESSION,
        "created": True,
        "failed_folders": [{"name": "x", "error": "gone"}],
        "narrowed": ["memory_max cut to 1G"],
    }
    assert ctl("session", "ensure", "work", "--profile", "strict", "--folder", "/a:b:ro", "-e", "K=V") == 0
    assert guest.called("session.ensure") == [
        {
            "name": "work",
            "profile": "strict",
            "folders": [{"name": "b", "source": "/a", "mode": "ro"}],
            "env": {"K": "V"},
        }
    ]
    assert capsys.readouterr().out.splitlines() == [
        "session work: made, uid 1001",
        "folder x is not mounted: gone",
        "narrowed: memory_max cut to 1G",
    ]


def test_list_is_a_table(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.list"] = lambda _: {"sessions": [SESSION]}
    assert ctl("session", "list") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["NAME", "STATE", "UID"]
    assert row.split()[:6] == ["work", "ready", "1001", "default", "2", "src:ro"]


def test_list_is_json_where_asked(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.list"] = lambda _: {"sessions": [SESSION]}
    assert ctl("session", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sessions"][0]["uid"] == 1001


def test_show_names_every_folder(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.get"] = lambda _: {"session": SESSION}
    assert ctl("session", "show", "work") == 0
    assert "folder src  ro /src" in capsys.readouterr().out


def test_rm_passes_force_on(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("session", "rm", "-f", "work") == 0
    assert guest.called("session.delete") == [{"session": "work", "force": True}]
    assert capsys.readouterr().out == "session work is removed\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_a_guest_says_cannot_drive_the_terminal(
    options: tuple[str, ...], ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    made = guest.answers["session.ensure"]
    evil = "\x1b]0;owned\x07\u202e\u009b2J"
    failed = {"failed_folders": [{"name": evil, "error": evil}], "narrowed": [evil]}
    guest.answers["session.ensure"] = lambda params: {**made(params), **failed}
    assert ctl(*options, "session", "ensure", "work") == 0
    said = capsys.readouterr().out
    assert "owned" in said
    assert said.replace("\n", "").isprintable()
