"""Why a granted folder is refused, from its own state and from what really happens."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_doctor_folder import explain_grant, explain_look, explain_questions, find_folder
from coworkd.model.calls import FolderInfo
from coworkd.model.errors import NotFound, Unavailable


def folder(**more: Any) -> FolderInfo:
    fields: dict[str, Any] = {
        "name": "work",
        "source": "/Users/me/work",
        "mode": "rw",
        "required": False,
        "state": "mounted",
        "path": "/sessions/s/mnt/work",
        "mounted_as": "guarded",
    }
    return FolderInfo(**{**fields, **more})


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/sessions/s/mnt/work/a", "/sessions/s/mnt/work/a"),
        ("work/a", "/sessions/s/mnt/work/a"),
        ("/Users/me/work/a", "/sessions/s/mnt/work/a"),
        ("/Users/me/work", "/sessions/s/mnt/work"),
    ],
)
def test_a_path_is_found_however_it_is_named(path: str, inside: str) -> None:
    found, seen = find_folder([folder()], "s", path)
    assert found is not None
    assert seen == inside


@pytest.mark.parametrize("path", ["/Users/me/worker", "other/a", "work/../../x", "/etc/passwd"])
def test_a_path_beside_it_is_not_in_it(path: str) -> None:
    assert find_folder([folder()], "s", path)[0] is None


def test_what_is_not_granted_is_told_with_what_is() -> None:
    [finding] = explain_grant([folder()], "s", "/x", None)
    assert finding.state == "failed"
    assert "work (/Users/me/work, rw)" in finding.detail
    assert "folder mount s" in finding.remedy


def test_what_could_not_be_mounted_says_why_and_names_the_host() -> None:
    findings = {one.check: one for one in explain_grant([], "s", "x", folder(state="failed", error="is not there"))}
    assert (findings["mounted"].state, findings["mounted"].detail) == ("failed", "is not there")
    assert "Files and Folders" in findings["mounted"].remedy


@pytest.mark.parametrize(
    ("mode", "state", "word"),
    [("ro", "degraded", "read-only"), ("rw", "ok", "deleted"), ("rwd", "ok", "deletes"), ("staged", "ok", "accepted")],
)
def test_the_mode_says_what_it_allows(mode: str, state: str, word: str) -> None:
    findings = {one.check: one for one in explain_grant([], "s", "x", folder(mode=mode))}
    assert findings["mode"].state == state
    assert word in findings["mode"].detail


def test_a_look_that_fails_is_told_by_its_reason() -> None:
    assert explain_look("/x", None).state == "ok"
    assert "owner and mode" in explain_look("/x", Unavailable("no", errno=13)).remedy
    assert "share it again" in explain_look("/x", Unavailable("no", errno=116)).remedy
    assert "case-sensitive" in explain_look("/x", NotFound("no", errno=2)).remedy


def test_questions_that_nobody_answered_are_told() -> None:
    records = [
        {"kind": "approval.answer", "name": "work", "answer": "once"},
        {"kind": "approval.answer", "name": "other", "answer": "deny"},
        {"kind": "approval.answer", "name": "work", "answer": "timeout"},
    ]
    [finding] = explain_questions(records, "work", "s")
    assert finding.detail.startswith("1 questions")
    assert "timeout" in finding.detail
    assert list(explain_questions(records[:2], "work", "s")) == []
