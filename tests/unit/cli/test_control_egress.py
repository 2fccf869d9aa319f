"""`coworkctl egress check`, `log`, `allow` and `status`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coworkd.cli.control_egress import parse_duration, parse_target, record_line, record_of
from coworkd.model.calls import EgressRecord
from coworkd.model.errors import InvalidParams
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

RECORD: dict[str, Any] = {
    "at": 100.0,
    "kind": "open",
    "session": "work",
    "connection": 7,
    "protocol": "connect",
    "host": "index.example",
    "port": 443,
    "rule": "index.example in egress/default.json",
    "reason": "allowed",
}


def record(**changes: Any) -> EgressRecord:
    return EgressRecord(**{**RECORD, **changes})


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("index.example", ("index.example", 443)),
        ("index.example:8443", ("index.example", 8443)),
        ("[2001:db8::1]:22", ("2001:db8::1", 22)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
        ("2001:db8::1", ("2001:db8::1", 443)),
    ],
)
def test_a_target_is_a_host_and_a_port(text: str, target: tuple[str, int]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *("https://index.example/", "index.example:", ":443", "a.example:0", "a.example:1x", "[]:1"),
        *("[2001:db8::1]443", "[2001:db8::1", "[2001:db8::1]:", "[[::1]]:1", "a.example:" + "1" * 5000),
    ],
)
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams):
        parse_target(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "10w", "m", "1e3", "ten"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match="10m"):
        parse_duration(text)


@pytest.mark.parametrize(("allowed", "status"), [(True, 0), (False, 1)])
def test_check_has_its_status_and_names_the_rule(
    allowed: bool, status: int, ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "allowed": allowed,
        "host": "index.example",
        "port": 8443,
        "rule": RECORD["rule"] if allowed else None,
        "reason": "because",
    }
    guest.answers["egress.check"] = lambda _: answer
    assert ctl("egress", "check", "Index.Example:8443", "--session", "work") == status
    assert guest.called("egress.check") == [{"host": "Index.Example", "port": 8443, "session": "work"}]
    said = capsys.readouterr().out
    assert ("allowed  index.example:8443" in said) is allowed
    assert ("REFUSED" in said) is not allowed
    assert (RECORD["rule"] in said) is allowed
    assert ("because" in said) is not allowed


def test_check_tells_json(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"allowed": False, "host": "a.example", "port": 443, "rule": None, "reason": "no"}
    guest.answers["egress.check"] = lambda _: answer
    assert ctl("egress", "check", "a.example", "--json") == 1
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "work allowed connect index.example:443 by index.example in egress/default.json"),
        ({"upstream": "host"}, "index.example:443 via host by"),
        ({"kind": "refused", "reason": "no\x1b", "count": 3}, "REFUSED connect index.example:443: no\\x1b (3 times)"),
        ({"kind": "close", "sent_bytes": 5, "received_bytes": 6, "took_s": 61.0}, "5 bytes out, 6 in, 1m01s"),
        ({"kind": "close", "reason": "reset"}, ": reset"),
        (
            {"kind": "request", "method": "GET", "path": "/x", "status": 200},
            "request connect index.example:443 GET /x 200",
        ),
        ({"host": "2001:db8::1"}, "[2001:db8::1]:443"),
    ],
)
def test_each_kind_of_record_is_one_line(changes: dict[str, Any], words: str) -> None:
    assert words in record_line(record(**changes))


def test_log_passes_its_options_on(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["egress.log"] = lambda _: {"records": [RECORD]}
    assert ctl("egress", "log", "--session", "work", "--refused", "-n", "5", "--json") == 0
    assert guest.called("egress.log") == [{"session": "work", "limit": 5, "refused_only": True}]
    assert json.loads(capsys.readouterr().out)["host"] == "index.example"


def test_log_goes_on_with_events_and_tells_nothing_twice(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {key: value for key, value in RECORD.items() if key not in ("at", "kind")}

    def follow(_: dict[str, Any]) -> None:
        guest.notify("egress.decision", seq=1, at=101.0, allowed=True, **told)
        guest.notify("session.created", seq=2, at=101.0, session="work")
        guest.notify("egress.decision", seq=3, at=102.0, allowed=False, **{**told, "host": "bad.example"})
        guest.notify("egress.close", seq=4, at=103.0, **{**told, "session": "other"})
        # The same numbers long afterwards: another coworkd-egress counts anew.
        guest.notify("egress.decision", seq=5, at=900.0, allowed=True, **told)
        guest.hang_up()

    guest.answers["events.subscribe"] = lambda _: {"next": 1, "missed": 0}
    guest.answers["egress.log"] = lambda _: {"records": [RECORD]}
    guest.after["egress.log"] = follow
    assert ctl("egress", "log", "--session", "work", "-f") == 1
    lines = [line.split()[3:5] for line in capsys.readouterr().out.splitlines()]
    assert [verdict for verdict, _ in lines] == ["allowed", "REFUSED", "allowed"]


def test_an_event_is_what_the_log_would_tell() -> None:
    told = {key: value for key, value in RECORD.items() if key not in ("at", "kind", "rule")}
    assert record_of("egress.decision", 100.0, {**told, "allowed": True, "rule": RECORD["rule"]}) == record()
    assert record_of("egress.decision", 1.0, {"session": "work", "allowed": False}).kind == "refused"
    assert record_of("egress.request", 1.0, {"session": "work", "path": "/x"}).path == "/x"


def test_allow_says_until_when(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["egress.allow"] = lambda _: {"host": "*.example.org", "until": 100.0}
    assert ctl("egress", "allow", "work", "*.example.org", "--for", "10m") == 0
    [called] = guest.called("egress.allow")
    assert (called["session"], called["host"], called["duration_s"]) == ("work", "*.example.org", 600.0)
    assert "*.example.org is allowed for work until" in capsys.readouterr().out


def test_status_counts_by_session(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"session": "work", "connections": 2, "connections_total": 9, "refused_total": 1}
    answer = {
        "pid": 0,
        "degraded": ["no Landlock"],
        "unrecorded": 3,
        "sessions": [{**counts, "sent_bytes": 10, "received_bytes": 20}],
    }
    guest.answers["egress.status"] = lambda _: answer
    assert ctl("egress", "status") == 0
    said = capsys.readouterr().out
    assert "AWAY" in said
    assert "degraded: no Landlock" in said
    assert "3 events wait" in said
    assert said.splitlines()[-1].split() == ["work", "2", "9", "1", "10", "20"]
