"""`coworkctl doctor`, `info`, `stats` and `call`."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import HELLO, FakeGuest
from tests.unit.wire.exposition import parse_exposition
from tests.unit.wire.test_prometheus import STATS

INFO: dict[str, Any] = {
    "version": "1",
    "protocol": 1,
    "boot_id": "b",
    "kernel": "6",
    "machine": "x86_64",
    "bubblewrap": "0.8",
    "pid": 1,
    "launcher_pid": 2,
    "state_dir": "/s",
    "profiles": ["default"],
    "endpoints": [],
}


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("degraded", 0), ("failed", 1)])
def test_doctor_says_how_to_mend_and_fails_for_failures(
    state: str, status: int, ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = {"check": "bubblewrap", "state": state, "detail": "is old", "remedy": "apt install bubblewrap"}
    guest.answers["doctor"] = lambda _: {"findings": [finding]}
    assert ctl("doctor") == status
    assert ("mend it: apt install" in capsys.readouterr().out) is (state != "ok")


def test_info_tells_what_is_degraded(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["hello"] = lambda _: {**HELLO, "degraded": {"cgroup": "no memory"}}
    guest.answers["info"] = lambda _: INFO
    assert ctl("info") == 0
    assert "degraded: cgroup: no memory" in capsys.readouterr().out
    guest.answers["hello"] = lambda _: HELLO


def test_stats_in_the_text_format_of_prometheus(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["hello"] = lambda _: {**HELLO, "degraded": {"endpoint unix:///home/alice/s": "no directory"}}
    guest.answers["stats"] = lambda _: msgspec.to_builtins(STATS)
    assert ctl("stats", "--prometheus") == 0
    told = parse_exposition(capsys.readouterr().out)
    assert told["coworkd_links"].value == STATS.links
    assert told["coworkd_degraded"].by("part") == {"endpoint": 1}
    guest.answers["hello"] = lambda _: HELLO


def test_call_prints_the_answer_with_its_bytes(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["any.thing"] = lambda params: {"got": params["data"] + b"!"}
    assert ctl("call", "any.thing", '{"data": {"$bin": "AA=="}}') == 0
    assert json.loads(capsys.readouterr().out) == {"got": {"$bin": "ACE="}}


def test_call_reads_its_parameters(
    ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["any.thing"] = lambda params: params
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert ctl("call", "any.thing", "-") == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_call_refuses_what_is_no_json_before_it_connects(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("call", "any.thing", "{") == 1
    assert "not JSON" in capsys.readouterr().err
    assert guest.calls == []
