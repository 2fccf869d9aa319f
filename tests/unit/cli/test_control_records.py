"""`coworkctl events` and `logs`, and records as lines."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_records import print_map, record_line
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest

RECORD = {"seq": 4, "at": 0.0, "kind": "process.start", "prev": "aa", "hash": "bb", "argv": ["a\x1b"]}


def test_a_record_is_one_line_without_hashes_and_control_characters() -> None:
    line = record_line(RECORD)
    assert "process.start argv=['a\\x1b']" in line
    assert "aa" not in line


def test_events_are_shown_until_the_link_ends(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    def follow(_: dict[str, Any]) -> None:
        guest.notify("session.created", seq=3, at=0.0, session="w\x07")
        guest.hang_up()

    guest.answers["events.subscribe"] = lambda _: {"next": 3, "missed": 2}
    guest.after["events.subscribe"] = follow
    assert ctl("events", "--after", "0") == 1
    said = capsys.readouterr()
    assert said.out.rstrip().endswith("session.created session=w\\x07")
    assert "2 events were missed" in said.err


def test_logs_are_lines(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"at": 0.0, "level": "warning", "component": "link", "message": "gone", "fields": {"n": 1}}
    guest.answers["logs"] = lambda _: {"lines": [line], "dropped": 7}
    assert ctl("logs", "--level", "warning") == 0
    assert guest.called("logs") == [{"level": "warning"}]
    said = capsys.readouterr()
    assert said.out.rstrip().endswith("WARNING [link] gone n=1")
    assert "7 older lines" in said.err


def test_lists_are_one_line_and_maps_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_map({"a": ("x", "y"), "b": {"k": 1}, "c": []})
    assert capsys.readouterr().out == 'a  x y\nb  {"k": 1}\nc  -\n'
