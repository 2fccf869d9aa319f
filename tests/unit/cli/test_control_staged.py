"""`coworkctl changes`, `commit` and `discard`."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Ctl
from tests.unit.client.conftest import FakeGuest


def change(path: str | bytes, kind: str = "added", **fields: Any) -> dict[str, Any]:
    return {"path": path, "kind": kind, "entry": "file", "size": 5, **fields}


def changes(*found: dict[str, Any], more: bool = False, **fields: Any) -> dict[str, Any]:
    return {"changes": list(found), "total": len(found), "more": more, **fields}


def committed(*results: dict[str, Any], done: int = 0, conflicts: int = 0, failed: int = 0) -> dict[str, Any]:
    return {"committed": done, "conflicts": conflicts, "failed": failed, "results": list(results), "left_out": 0}


def test_changes_are_a_table_with_what_stands_against_each(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.answers["folder.changes"] = lambda _: changes(
        change("a", "modified", old_size=3, conflict="it was changed in the folder meanwhile"),
        change("d", "deleted", entry="directory", entries=7),
        change("new", "renamed", before="old"),
        change("k", "modified", was="directory"),
    )
    assert ctl("folder", "changes", "work", "src") == 0
    assert capsys.readouterr().out.splitlines() == [
        "CHANGE    SIZE  WHAT                 PATH",
        "modified  3>5   file                 a",
        "deleted   5     directory of 7       d",
        "renamed   5     file                 new (was old)",
        "modified  5     file, was directory  k",
        "conflict: a: it was changed in the folder meanwhile",
    ]


def test_all_pages_are_read(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"": changes(change("a"), change("b"), more=True), "b": changes(change("c"))}
    guest.answers["folder.changes"] = lambda params: pages[params.get("after", "")]
    assert ctl("--json", "changes", "work", "src") == 0
    assert [each["path"] for each in json.loads(capsys.readouterr().out)] == ["a", "b", "c"]


def test_a_name_cannot_drive_the_terminal(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.changes"] = lambda _: changes(change(b"\x1b[2J\xff\n"))
    assert ctl("changes", "work", "src") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_diff_is_shown_line_by_line(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.changes"] = lambda _: changes(diff=b"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+\ttwo\x1b[m\n")
    assert ctl("changes", "work", "src", "--diff", "x") == 0
    assert capsys.readouterr().out == "--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+\ttwo\\x1b[m\n"
    assert guest.called("folder.changes") == [{"session": "work", "name": "src", "limit": 1, "diff": "x"}]


def test_where_there_is_no_diff_that_is_said(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.changes"] = lambda _: changes()
    assert ctl("changes", "work", "src", "--diff", "x") == 0
    assert "no text" in capsys.readouterr().out


def test_a_commit_tells_each_path(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.commit"] = lambda _: committed({"path": "a", "state": "committed"}, done=1)
    assert ctl("commit", "work", "src", "a", "--overwrite") == 0
    assert capsys.readouterr().out == "committed  a\n1 committed, 0 in conflict, 0 not done\n"
    (params,) = guest.called("folder.commit")
    assert (params["paths"], params["overwrite"]) == (["a"], True)


@pytest.mark.parametrize("counts", [{"conflicts": 1}, {"failed": 1}])
def test_what_was_not_committed_is_an_exit_status(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], counts: dict[str, int]
) -> None:
    result = {"path": "a", "state": "conflict", "reason": "it was changed"}
    guest.answers["folder.commit"] = lambda _: committed(result, **counts)
    assert ctl("commit", "work", "src") == 1
    assert "conflict   a: it was changed\n" in capsys.readouterr().out
    assert "paths" not in guest.called("folder.commit")[0]


def test_a_discard_says_how_many(ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.answers["folder.discard"] = lambda _: {"discarded": 3}
    assert ctl("discard", "work", "src", "a", "--yes") == 0
    assert capsys.readouterr().out == "3 discarded\n"


def test_nothing_is_discarded_unasked(
    ctl: Ctl, guest: FakeGuest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))  # no terminal: a script's input is no answer
    assert ctl("discard", "work", "src") == 1
    assert "--yes" in capsys.readouterr().err
    assert guest.called("folder.discard") == []


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("no\n", 1), ("", 1)])
def test_a_person_is_asked(
    ctl: Ctl, guest: FakeGuest, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    guest.answers["folder.discard"] = lambda _: {"discarded": 1}
    assert ctl("discard", "work", "src") == status
    assert len(guest.called("folder.discard")) == 1 - status
