"""JSON with bytes in it."""

from __future__ import annotations

import json

import pytest

from coworkd.cli.control_json import dump, load
from coworkd.model.calls import Pong
from coworkd.model.errors import InvalidParams


def test_bytes_travel_as_base64_both_ways() -> None:
    value = {"data": b"\x00\xff", "list": [b"a", {"b": b""}], "text": "é"}
    assert load(dump(value)) == value
    assert json.loads(dump(value))["data"] == {"$bin": "AP8="}


def test_structs_are_dumped_by_field() -> None:
    assert json.loads(dump(Pong(time=1.0, monotonic=2.0))) == {"time": 1.0, "monotonic": 2.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": }', "line 1, column 7"),
        ("[1]", "a JSON object"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": {"$bin": "no base64!"}}', "base64"),
        ('{"a": {"$bin": 5}}', "base64"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidParams, match=says):
        load(text)


@pytest.mark.parametrize(
    ("letter", "printed"),
    [
        ("\u202e", "\\u202e"),
        ("\u009b", "\\u009b"),
        ("\u200b", "\\u200b"),
        ("\ufeff", "\\ufeff"),
        ("\u2066", "\\u2066"),
        ("\udc80", "\\udc80"),
        ("\U000e0001", "\\udb40\\udc01"),
        ("\x1b", "\\u001b"),
        ("\x7f", "\\u007f"),
        ("é😀", "é😀"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_no_letter_drives_a_terminal_and_a_parser_reads_what_was_meant(
    letter: str, printed: str, indent: int | None
) -> None:
    value = {f"key {letter}": [letter, "plain"]}
    text = dump(value, indent=indent)
    assert printed in text
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
