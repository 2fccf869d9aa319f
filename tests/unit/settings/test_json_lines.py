"""`settings.json_lines`: JSON with lines, and what `json` alone would let pass."""

from __future__ import annotations

import pytest

from coworkd.settings import BadFile
from coworkd.settings.json_lines import parse_json, scan_json
from coworkd.settings.lines import KeyPath

TEXT = """{
  "a": {"b": 1,
    "c": [ "x]", {"d": null}, "\\"{",
      true]
  },
  "\\u0065": "a\\nb"
}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("a", "b"), 2),
        (("a", "c"), 3),
        (("a", "c", 0), 3),
        (("a", "c", 1, "d"), 3),
        (("a", "c", 3), 4),
        (("e",), 6),
        (("a", "absent"), 2),
    ],
)
def test_scan_finds_every_key_and_element(path: KeyPath, line: int) -> None:
    tree, lines = parse_json(TEXT.encode(), file="f")
    assert lines.line(path) == line
    assert tree["e"] == "a\nb"
    assert lines.repeats == []


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ('{"a": 1,\n"a": 2}', 2, "a", "twice, first on line 1"),
        ('{"n": {"k": 1,\n\n"\\u006b": 2}}', 3, "n.k", "twice, first on line 1"),
        ('[{"k": 1}]', 1, "", "one JSON object"),
        ("{\n\n", 3, "", "is not JSON"),
        ('{"a": 1,}', 1, "", "is not JSON"),
        ('{"a": NaN}', 1, "", "NaN is not a number"),
        ('{"a": -Infinity}', 1, "", "not a number"),
        ("[" * 100_000, 1, "", "nested too deeply"),
        ('{"a": 1' + "0" * 5000 + "}", 1, "", "is not JSON"),
        ("", 1, "", "is not JSON"),
    ],
)
def test_parse_refuses_with_line_and_key(text: str, line: int, key: str, says: str) -> None:
    with pytest.raises(BadFile) as caught:
        parse_json(text.encode(), file="f")
    first = caught.value.findings[0]
    assert (first.line, first.key) == (line, key)
    assert says in first.message


def test_a_repeat_before_broken_text_is_still_a_refusal() -> None:
    with pytest.raises(BadFile, match="twice"):
        parse_json(b'{"a": {"k": 1, "k": 2}}', file="f")
    with pytest.raises(BadFile):
        parse_json(b'{"a": {"k": 1, "k": 2}, ]', file="f")


def test_same_key_in_two_objects_is_no_repeat() -> None:
    assert scan_json('[{"k": 1}, {"k": 2}]').repeats == []
