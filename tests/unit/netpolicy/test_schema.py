"""`netpolicy.schema`: small checks, each mistake at its key."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.netpolicy.schema import (
    Check,
    Findings,
    Place,
    both,
    dotted,
    flag,
    list_of,
    map_of,
    one_of,
    parsed,
    table,
    text,
    told,
    units,
    whole,
)
from coworkd.settings import Finding
from coworkd.settings.findings import MAX_FINDINGS
from coworkd.settings.json_lines import parse_json
from coworkd.settings.values import integer, listed


def found(check: Check, value: object) -> list[Finding]:
    findings = Findings("f")
    check(value, findings.root)
    return findings.found


def takes(check: Check, value: object) -> bool:
    return not found(check, value)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (flag, [True, False], [0, 1, None, "true"]),
        (text(), ["", "x"], [None, 1, [], True]),
        (text(1, 2), ["x", "xx", "\U0001f600"], ["", "xxx", "\U0001f600x"]),
        (whole(1, 9), [1, 9, 3.0], [0, 10, 2.5, True, "3", None, float("nan"), float("inf"), 10**5000]),
        (one_of("a", "b"), ["a"], ["c", 1, None, []]),
        (list_of(flag, 1), [[True], (True,)], [[], None, "x", {}]),
        (map_of(flag), [{}, {"x": True}], [{"x": 1}, [], None]),
        (table({"a": flag}), [{}, {"a": True}, {"b": 1}], [{"a": 1}, {"a": None}, [], None]),
        (table({"a": flag}, required=("a",)), [{"a": True}], [{}, {"b": 1}]),
        (table({"a": flag}, strict=True), [{}, {"a": True}], [{"b": 1}]),
        (parsed(integer(1, 2)), [1], [3, True]),
        (told(lambda value: None if value == "x" else ("no", None), "an x"), ["x"], ["y", 1]),
    ],
)
def test_checks_take_what_is_right_and_nothing_else(check: Check, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not takes(check, value)] == []
    assert [value for value in bad if takes(check, value)] == []


def test_a_mistake_is_told_at_its_key_and_line() -> None:
    tree, lines = parse_json(b'{\n"a": [\n{"b": true},\n{"b": 1}]}', file="s.json")
    findings = Findings("s.json", lines)
    table({"a": list_of(table({"b": flag}))})(tree, findings.root)
    assert [str(finding) for finding in findings.found] == ["s.json:4: a[1].b: wants true or false"]


def test_the_nearest_spelling_is_asked_after() -> None:
    [missing] = found(table({"domains": flag}, required=("domains",)), {"domain": True})
    assert (missing.key, missing.nearest) == ("domains", "domains")
    assert "is it 'domain'" in missing.message
    [unknown] = found(table({"domains": flag}, strict=True), {"domain": True})
    assert (unknown.key, unknown.nearest) == ("domain", "domains")
    [word] = found(one_of("refuse", "normalize"), "refuze")
    assert word.message == "wants one of refuse, normalize; did you mean 'refuse'?"


def test_an_element_is_told_by_its_place() -> None:
    [finding] = found(table({"a": parsed(listed(integer(1, 2)))}), {"a": (1, 3)})
    assert finding.key == "a[1]"


def test_the_second_of_both_may_rely_on_the_first() -> None:
    def second(value: dict[str, int], place: Place) -> None:
        if value["a"] > 1:
            place.refuse("is over one")

    check = both(table({"a": whole(0, 9)}, required=("a",)), second)
    assert [finding.message for finding in found(check, {"a": 2})] == ["is over one"]
    assert len(found(check, {})) == 1
    many = list_of(check)
    assert len(found(many, [{}] * (MAX_FINDINGS + 50))) == MAX_FINDINGS


@pytest.mark.parametrize(("path", "said"), [((), ""), (("a",), "a"), (("a", "b", 0, "c"), "a.b[0].c")])
def test_paths_are_written_with_dots(path: tuple[str | int, ...], said: str) -> None:
    assert dotted(path) == said


def test_units_are_those_of_utf_16() -> None:
    assert units("a\u00e9\U0001f600") == 4
