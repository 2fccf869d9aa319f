"""`cli.control_question`: a question in words, and its keys."""

from __future__ import annotations

import pytest

from coworkd.cli.control_question import describe_end, lines_of, parse_key, question_of, question_of_approval
from coworkd.model.calls import Approval
from coworkd.model.names import OsBytes

PARAMS = {
    "approval": "a1",
    "session": "work",
    "process": "p1",
    "folder": "f",
    "paths": ["x", b"y\xff\n\x1b[2J"],
    "count": 2,
    "command": ["rm", "x", b"y\xff\n\x1b[2J"],
    "revision": 3,
    "expires_at": 5.0,
}


def test_names_cannot_drive_the_terminal() -> None:
    lines = lines_of(question_of(PARAMS))
    assert lines == [
        "session work wants to delete 2 files in folder f:",
        "    x",
        "    y\\xff\\n\\x1b[2J",
        "  by: rm x y\\xff\\n\\x1b[2J",
    ]


def test_a_long_list_is_counted() -> None:
    many = {**PARAMS, "paths": [f"{number}" for number in range(100)], "count": 5000, "more": True, "trees": ["d", ""]}
    lines = lines_of(question_of(many))
    assert lines[0] == "session work wants to delete 5000 or more files in folder f:"
    assert "    and 4988 more" in lines
    assert "    with all that lies below d, ." in lines
    assert len(lines) == 16


def test_both_ways_of_learning_of_one_give_the_same_question() -> None:
    approval = Approval(
        approval="a1",
        session="work",
        process="p1",
        folder="f",
        action="delete",
        paths=(OsBytes(b"x"),),
        count=1,
        waiting=1,
        asked_at=1.0,
        expires_at=5.0,
        revision=3,
        command=(OsBytes(b"rm"),),
    )
    event = {**PARAMS, "paths": [b"x"], "count": 1, "command": [b"rm"]}
    assert lines_of(question_of_approval(approval)) == lines_of(question_of(event))
    assert question_of_approval(approval).revision == 3


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y", "once"),
        ("  S\n", "session"),
        ("n", "deny"),
        ("\x03", "deny"),
        ("\x1b", "deny"),
        ("", None),
        ("\r", None),
        ("q7", None),
    ],
)
def test_keys(typed: str, answer: str | None) -> None:
    assert parse_key(typed) == answer


def test_an_end_that_is_not_known_is_shown_as_it_came() -> None:
    assert describe_end("timeout") == "nobody answered in time, and it is refused"
    assert describe_end("new\n") == "new\\n"
