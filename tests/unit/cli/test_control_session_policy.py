"""`coworkctl policy set` and `coworkctl session policy`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.cli.control_session_policy import layer_lines, read_settings
from coworkd.model.calls import EgressLayer
from coworkd.model.errors import InvalidParams
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

SETTINGS = {"network": {"allowedDomains": ["index.example"], "deniedDomains": []}}
SET = {"effective": {}, "narrowed": ["egress: \x1b is cut"], "closed": 2}
POLICY: dict[str, Any] = {
    "profile": "default",
    "egress": [
        {
            "source": "egress/default.json",
            "allowed": ["a.example", "*.b.example"],
            "denied": ["c.example"],
            "presets": {"python": ["index.example"], "node": []},
            "allow_private": True,
            "inspected": ["d.example"],
            "warnings": ["allowPty does nothing here"],
        }
    ],
    "allowances": [{"pattern": "e.example", "until": 100.0}],
    "upstream": "direct",
    "egress_limits": {},
    "limits": {
        "memory_max_bytes": 1,
        "memory_high_bytes": 1,
        "swap_max_bytes": 0,
        "pids_max": 1,
        "cpu_max": 1.0,
        "cpu_weight": 100,
        "io_weight": 100,
        "tmp_max_bytes": 1,
        "disk_max_bytes": 1,
        "nofile": 1,
        "fsize_max_bytes": 0,
        "cpu_time_s": 0,
        "core_max_bytes": 0,
        "spool_max_bytes": 1,
        "timeout_s": 0.0,
    },
    "narrowed": [],
}


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidParams, match="more than"):
        read_settings("/dev/zero")


def test_entries_that_were_left_out_are_said() -> None:
    layer = EgressLayer(
        source="big.json", allowed=("a.example",), denied=(), presets={}, allow_private=False, inspected=(), warnings=()
    )
    assert not any("more" in line for line in layer_lines(layer))
    assert any("7 entries more" in line for line in layer_lines(structs.replace(layer, left_out=7)))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "egress.json"
    path.write_text(json.dumps(SETTINGS))
    return str(path)


def test_set_sends_the_file_as_a_map(
    ctl: Ctl, guest: FakeGuest, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["session.set_policy"] = lambda _: SET
    assert ctl("policy", "set", "work", "--egress", settings, "--profile", "strict") == 0
    [called] = guest.called("session.set_policy")
    assert (called["session"], called["profile"], called["egress"]) == ("work", "strict", SETTINGS)
    assert called.get("close_forbidden", True) is True
    said = capsys.readouterr().out
    assert "2 open connections were closed" in said
    assert "narrowed: egress: \\x1b is cut" in said


def test_set_can_leave_connections_open(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.set_policy"] = lambda _: SET
    assert ctl("policy", "set", "work", "--profile", "strict", "--keep-open", "--json") == 0
    assert guest.called("session.set_policy")[0]["close_forbidden"] is False
    assert json.loads(capsys.readouterr().out) == SET


def test_set_takes_a_file_away(ctl: Ctl, guest: FakeGuest) -> None:
    guest.answers["session.set_policy"] = lambda _: SET
    assert ctl("policy", "set", "work", "--no-egress") == 0
    assert guest.called("session.set_policy")[0]["egress"] == {}


def test_set_wants_something_to_set(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("policy", "set", "work") == 1
    assert "--profile, --egress or --no-egress" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"), [("{", "bad.json:1"), ('{"a": 1,\n"a": 2}', "bad.json:2"), ("[]", "bad.json")]
)
def test_settings_that_are_no_json_object_are_told_with_their_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InvalidParams, match=says):
        read_settings(str(path))


def test_settings_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="cannot be read"):
        read_settings(str(tmp_path / "none.json"))
    assert read_settings(None) is None


def test_session_policy_shows_every_layer(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.policy"] = lambda _: POLICY
    assert ctl("session", "policy", "work") == 0
    said = capsys.readouterr().out
    for words in (
        "upstream  direct",
        "settings egress/default.json",
        "allowed   a.example *.b.example",
        "denied    c.example",
        "preset    python: index.example",
        "preset    node: nothing",
        "inspected d.example",
        "note      allowPty does nothing here",
        ": e.example",
    ):
        assert words in said


def test_session_policy_tells_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["session.policy"] = lambda _: POLICY
    assert ctl("session", "policy", "work", "--json") == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "default"
