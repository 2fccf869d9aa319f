"""Rules: only what they name is copied."""

from __future__ import annotations

import re
from typing import Any

import pytest

from coworkd.services import report_redact as rules
from coworkd.services.report_redact import Redactor
from coworkd.services.report_words import REMOVED, Words

RULE = rules.record(
    {
        "state": rules.form(rules.WORD),
        "count": rules.number,
        "why": rules.prose,
        "session": rules.name,
        "argv": rules.command,
        "sizes": rules.each(rules.number),
        "by": rules.mapping(rules.form(rules.WORD), rules.number),
        "inner": rules.record({"ok": rules.number}),
    }
)
VALUE: dict[str, Any] = {
    "state": "running",
    "count": 3,
    "why": "the disk is full",
    "session": "payroll",
    "argv": ["deploy", "--token", "hunter2"],
    "sizes": [1, 2.5, None],
    "by": {"stdout": 7},
    "inner": {"ok": True, "env": {"TOKEN": "hunter2"}},
    "env": {"TOKEN": "hunter2"},
}


def redactor(**more: Any) -> Redactor:
    return Redactor(Words({"the", "disk", "is", "full"}), **more)


def test_what_a_rule_names_is_copied_and_nothing_else() -> None:
    by = redactor()
    copied = RULE(by, VALUE)
    name = copied.pop("session")
    assert copied == {
        "state": "running",
        "count": 3,
        "why": "the disk is full",
        "argv": REMOVED,
        "sizes": [1, 2.5, None],
        "by": {"stdout": 7},
        "inner": {"ok": True},
    }
    assert re.fullmatch("name-[0-9a-f]{8}", name)
    assert by.removed == 3  # argv, env, and the env inside


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "hunter2 "),
        ("state", ["running"]),
        ("count", "hunter2"),
        ("count", {"a": 1}),
        ("why", ["hunter2"]),
        ("session", {"hunter2": 1}),
        ("sizes", "hunter2"),
        ("sizes", {"hunter2": 1}),
        ("by", ["hunter2"]),
        ("inner", "hunter2"),
        ("by", {"hunter2 is a key": 1}),
    ],
)
def test_what_is_not_what_a_rule_says_is_left_out(key: str, value: object) -> None:
    by = redactor()
    assert "hunter2" not in str(RULE(by, {key: value}))
    assert by.removed == 1


def test_commands_are_copied_where_they_were_asked_for_and_environments_never() -> None:
    copied = RULE(redactor(with_commands=True), VALUE)
    assert copied["argv"] == ["deploy", "--token", "hunter2"]
    assert "env" not in copied


def test_names_are_the_same_within_a_bundle_and_not_in_the_next() -> None:
    first, second = redactor(), redactor()
    assert first.pseudonym("payroll") == first.pseudonym("payroll") != first.pseudonym("other")
    assert first.pseudonym("payroll") != second.pseudonym("payroll")
    assert first.scrub("payroll is full") == f"{first.pseudonym('payroll')} is full"
    assert redactor(with_names=True).pseudonym("payroll") == "payroll"


def test_a_tree_of_ours_is_scrubbed_down_to_its_keys() -> None:
    assert rules.tree(redactor(), {"full": ["disk", 1, {"hunter2": None}], "x": True}) == {
        "full": ["disk", 1, {REMOVED: None}],
        REMOVED: True,
    }


def test_what_is_of_any_length_is_cut() -> None:
    assert len(redactor().scrub("disk " * 10_000)) < rules.TEXT_CHARACTERS + 100
