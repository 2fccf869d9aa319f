"""JSON with lines: strict, bounded, no key twice."""

from __future__ import annotations

import json

import pytest

from coworkd.model.errors import InvalidParams
from coworkd.seccomp.located_json import MAX_BYTES, Located, nearest_word, parse_json


def plain(node: Located) -> object:
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    return [plain(value) for value in node.value] if isinstance(node.value, list) else node.value


def test_parse_reads_what_json_reads() -> None:
    text = '{"a": [1, -2.5e3, true, null, "\\u00e9\\n\\"x"], "b": {}, "c": []}'
    assert plain(parse_json(text.encode(), "f")) == json.loads(text)


def test_parse_remembers_lines_of_keys_and_items() -> None:
    root = parse_json(b'{\n "a":\n  1,\n "b": [\n  7,\n  8]}', "f").value
    assert (root["a"].line, root["b"].line) == (2, 4)
    assert [item.line for item in root["b"].value] == [5, 6]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('{\n"a": 1,\n"a": 2}', 3, "stands here and on line 2"),
        ('{"a": 1,\n}', 2, "another item"),
        ("[1,]", 1, "another item"),
        ("[1 2]", 1, "where"),
        ('{"a" 1}', 1, "':'"),
        ("{1: 2}", 1, "a key"),
        ("[NaN]", 1, "not JSON"),
        ("[01]", 1, "where"),
        ("// no\n{}", 1, "not JSON"),
        ('["a\nb"]', 1, "not JSON"),
        ("{}\n{}", 2, "end of the file"),
        ("", 1, "end of the file"),
        ("[" * 100, 1, "deeper"),
        ('["\\ud800"]', 1, "surrogate"),
        ("[" + "9" * 65 + "]", 1, "64 digits"),
    ],
)
def test_parse_refuses(text: str, line: int, why: str) -> None:
    with pytest.raises(InvalidParams, match=why) as raised:
        parse_json(text.encode(), "f.json")
    assert (raised.value.details["file"], raised.value.details["line"]) == ("f.json", line)


def test_parse_refuses_bytes_that_are_no_text() -> None:
    with pytest.raises(InvalidParams, match="not UTF-8") as raised:
        parse_json(b'{\n"a": "\xff"}', "f")
    assert raised.value.details["line"] == 2


def test_parse_refuses_a_file_too_big() -> None:
    with pytest.raises(InvalidParams, match="at most"):
        parse_json(b" " * (MAX_BYTES + 1), "f")


def test_nearest_word_suggests_or_stays_silent() -> None:
    assert nearest_word("acton", ("action", "names")) == "; did you mean 'action'?"
    assert nearest_word("zzzz", ("action", "names")) == ""
