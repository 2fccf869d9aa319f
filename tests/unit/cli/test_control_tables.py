"""Tables for people."""

from __future__ import annotations

import io
import re

import pytest

from coworkd.cli.control_tables import clock, print_fields, print_table, shown, span


def test_columns_are_as_wide_as_they_need() -> None:
    out = io.StringIO()
    print_table(("A", "LONG"), [("value", None), ("b", 5)], out)
    assert out.getvalue() == "A      LONG\nvalue  -\nb      5\n"


def test_control_characters_cannot_drive_the_terminal() -> None:
    assert shown("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
    assert shown(b"\xff\x07") == "\\xff\\x07"
    assert shown("é") == "é"


def test_fields_stand_under_each_other() -> None:
    out = io.StringIO()
    print_fields({"a": 1, "long": "x"}, out)
    assert out.getvalue() == "a     1\nlong  x\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (61, "1m01s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_clock_is_to_the_second() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", clock(0.9))
