"""`coworkctl watch`: events as lines."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_watch import event_line
from coworkd.model.event import Event
from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest


def line_of(name: str, params: dict[str, Any]) -> str | None:
    line = event_line(Event(seq=1, at=0.0, name=name, params={"session": "work", **params}))
    return None if line is None else line.partition(" ")[2]


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        (
            "activity",
            {"folder": "f", "change": "create", "path": "a\x1b", "size": 3},
            "work - [f] create a\\x1b (3 bytes)",
        ),
        ("activity", {"folder": "f", "change": "rename", "path": b"\xff", "to": "b"}, "work - [f] rename \\xff -> b"),
        ("activity", {"folder": "f", "change": "write", "path": "a", "count": 4}, "work - [f] write a, 4 times"),
        ("activity", {"folder": "f", "change": "many", "path": "d", "count": 300}, "work - [f] 300 changes in d"),
        ("activity", {"folder": "f", "change": "many", "path": "", "count": 3}, "work - [f] 3 changes in it"),
        ("activity", {"folder": "f", "change": "lost", "path": "", "count": 0}, "work - [f] changes were not seen"),
        ("process.start", {"process": "p1", "argv": ["sh", "-c", "a\nb"]}, "work p1 $ sh -c a\\nb"),
        ("process.exit", {"exit": {"code": 3, "signal": None, "reason": "exited"}}, "work - ended: status 3"),
        ("process.exit", {"exit": {"code": None, "signal": "KILL", "reason": "oom"}}, "work - ended: signal KILL, oom"),
        ("egress.decision", {"host": "h", "port": 443, "allowed": True}, "work - network h:443 allowed"),
        (
            "egress.decision",
            {"host": "h", "port": 443, "allowed": False, "reason": "no rule", "count": 2},
            "work - network h:443 REFUSED: no rule (2 times)",
        ),
        (
            "approval.requested",
            {"approval": "a1", "folder": "f", "paths": ["a", "b", "c", "d"], "count": 9},
            "work - [f] ASKS to delete a, b, c and 6 more: coworkctl approve a1",
        ),
        ("approval.closed", {"approval": "a1", "folder": "f", "answer": "once"}, "work - [f] a1 answered: once"),
        ("approval.refused", {"folder": "f", "count": 3, "reason": "r"}, "work - [f] 3 deletes refused: r"),
        ("folder.failed", {"name": "f", "error": "gone"}, "work - [f] FAILED, gone"),
        ("session.created", {}, "work - session made"),
        ("session.paused", {}, "work - session paused"),
        ("session.oom", {"scope": "session"}, "work - killed for memory: the limit was that of the session"),
        ("session.pressure", {"kind": "io", "level": "some"}, "work - waits for io: some"),
        ("network.status", {}, None),
    ],
)
def test_an_event_is_one_line(name: str, params: dict[str, Any], line: str | None) -> None:
    assert line_of(name, params) == line


def test_one_session_is_watched(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    def follow(_: dict[str, Any]) -> None:
        for seq, session in enumerate(("other", "work"), start=3):
            guest.notify("activity", seq=seq, at=0.0, session=session, folder="f", change="delete", path="a")
        guest.hang_up()

    guest.answers["events.subscribe"] = lambda _: {"next": 3, "missed": 1}
    guest.after["events.subscribe"] = follow
    assert ctl("watch", "work") == 1
    said = capsys.readouterr()
    assert said.out.count("delete a") == 1
    assert "1 events were missed" in said.err
