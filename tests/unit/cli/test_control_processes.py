"""`coworkctl ps` and `kill`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest, exit_record


def process(**more: Any) -> dict[str, Any]:
    return {
        "process": "p1",
        "session": "work",
        "argv": ["sh", "-c", "echo 'a b'"],
        "state": "running",
        "pid": 7,
        "started_at": 100.0,
        "streams": {},
        **more,
    }


@pytest.fixture
def listing(guest: FakeGuest) -> FakeGuest:
    ended = process(process="p2", state="exited", exit=exit_record("p2"), started_at=1.0)
    guest.answers["process.list"] = lambda _: {"processes": [process(), ended]}
    guest.answers["ping"] = lambda _: {"time": 165.0, "monotonic": 1.0}
    return guest


@pytest.mark.usefixtures("listing")
def test_ps_shows_what_runs_and_how_the_others_ended(ctl: Ctl, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("ps") == 0
    _, running, ended = capsys.readouterr().out.splitlines()
    assert running.split()[:5] == ["p1", "work", "running", "7", "1m05s"]
    assert running.endswith("sh -c 'echo '\"'\"'a b'\"'\"''")
    assert "exited 0" in ended


def test_ps_filters_by_session_and_prints_json(
    ctl: Ctl, listing: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("ps", "--session", "work", "--json") == 0
    assert listing.called("process.list") == [{"session": "work"}]
    assert [each["process"] for each in json.loads(capsys.readouterr().out)["processes"]] == ["p1", "p2"]


def test_ps_tells_of_what_did_not_fit(ctl: Ctl, listing: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    listing.answers["process.list"] = lambda _: {"processes": [process()], "omitted": 9}
    assert ctl("ps") == 0
    assert "9 older ones are not shown" in capsys.readouterr().err


def test_kill_waits_for_the_end(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("kill", "p1", "--grace", "2") == 0
    assert guest.called("process.kill") == [{"process": "p1", "grace_s": 2.0}]
    assert guest.called("process.wait") == [{"process": "p1", "timeout_s": 12.0}]
    assert "exited" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "sent"), [("TERM", "TERM"), ("15", 15)])
def test_kill_with_a_signal_only_sends_it(word: str, sent: object, ctl: Ctl, guest: FakeGuest) -> None:
    guest.answers["process.signal"] = lambda _: {}
    assert ctl("kill", "p1", "--signal", word) == 0
    assert guest.called("process.signal") == [{"process": "p1", "signal": sent}]
    assert guest.called("process.kill") == []
