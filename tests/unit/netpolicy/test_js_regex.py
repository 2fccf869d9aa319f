"""`netpolicy.js_regex`: which expressions JavaScript takes, and how many groups they capture."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.js_regex import BadRegex, count_groups
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("text", "valid"), verdicts("extracts"))
def test_an_expression_with_a_group_is_one_where_sandbox_runtime_takes_it(text: str, valid: bool) -> None:
    try:
        groups = count_groups(text)
    except BadRegex:
        groups = 0
    assert (groups > 0) is valid


@pytest.mark.parametrize(
    ("text", "groups"),
    [("a", 0), ("(a)(?:b)(?<c>d)", 2), ("[(](a)", 1), (r"\((a)", 1), ("(?=(a))", 1), ("((a)|(b))", 3), ("", 0)],
)
def test_groups_are_counted(text: str, groups: int) -> None:
    assert count_groups(text) == groups


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(", "not closed"),
        (")", "closes nothing"),
        ("[a", "not closed"),
        ("a**", "repetition of nothing"),
        ("a{2,1}", "runs backwards"),
        ("[z-a]", "runs backwards"),
        ("a\\", "ends in"),
        ("(?<a>)(?<a>)", "two groups"),
        ("(?<a>)\\k<b>", "not there"),
        ("(?<a>)\\k", "names no group"),
        ("(?P<a>)", "does not know"),
        ("(" * 300, "too deeply"),
    ],
)
def test_a_refusal_says_why(text: str, says: str) -> None:
    with pytest.raises(BadRegex, match=says):
        count_groups(text)
