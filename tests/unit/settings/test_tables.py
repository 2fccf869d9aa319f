"""`settings.tables`: TOML bytes and a schema → values with lines, or every mistake at once."""

from __future__ import annotations

import pytest

from coworkd.settings.findings import BadFile
from coworkd.settings.tables import MAX_FILE_BYTES, Given, read_tables
from coworkd.settings.values import choice, flag, integer, listed

SCHEMA = {
    "top": flag,
    "limits.pids_max": integer(1, 9),
    "limits.nofile": integer(1, 9),
    "folders.modes": listed(choice("ro", "rw")),
}


def refusal(text: str | bytes) -> BadFile:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BadFile) as caught:
        read_tables(data, file="f.toml", schema=SCHEMA)
    return caught.value


def test_read_gives_values_with_their_lines() -> None:
    given = read_tables(b"top = true\n[limits]\n\npids_max = 4\n", file="f.toml", schema=SCHEMA)
    assert given == {"top": Given(True, "f.toml", 1), "limits.pids_max": Given(4, "f.toml", 4)}


def test_read_takes_inline_and_dotted_spellings() -> None:
    given = read_tables(b"limits = { pids_max = 4 }\nfolders.modes = ['rw']", file="f", schema=SCHEMA)
    assert {key: item.value for key, item in given.items()} == {"limits.pids_max": 4, "folders.modes": ("rw",)}


def test_read_of_nothing_is_nothing() -> None:
    assert read_tables(b"", file="f", schema=SCHEMA) == {}


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("\n[limits]\npids_mx = 3", 3, "limits.pids_mx", "did you mean 'limits.pids_max'"),
        ("pids_max = 3", 1, "pids_max", "did you mean 'limits.pids_max'"),
        ("\n[limts]\npids_max = 3", 2, "limts", "did you mean 'limits'"),
        ('"limits.pids_max" = 3', 1, "limits.pids_max", "is not a key"),
        ("\nlimits = 3", 2, "limits", "is a table"),
        ("[[limits]]\npids_max = 3", 1, "limits", "is a table"),
        ("[limits]\npids_max = 0", 2, "limits.pids_max", "at least 1"),
        ("[limits]\npids_max = true", 2, "limits.pids_max", "not the flag true"),
        ("[limits]\n[limits.pids_max]\nx = 1", 2, "limits.pids_max", "wants a whole number"),
        ('[folders]\nmodes = [\n"ro",\n"rx"]', 4, "folders.modes", "'rx' is not one of ro, rw"),
        ("[limits]\npids_max = 1\nnofile = 2\npids_max = 3", 4, "limits.pids_max", "twice, first on line 2"),
        ("[limits]\npids_max = 1\n[limits]\nnofile = 3", 3, "limits", "twice, first on line 1"),
        ("top = tru", 1, "", "is not TOML"),
        ("\n\ntop = ", 3, "", "is not TOML"),
        ("top = 1" + "0" * 5000, 1, "", "is not TOML"),
        ("top = " + "[" * 100_000, 1, "", "nested too deeply"),
        (b"\xff", 1, "", "is not UTF-8"),
        (b"a = 1\nb = '\xff'", 2, "", "is not UTF-8"),
        (b"\xef\xbb\xbftop = true", 1, "", "byte order mark"),
        (b"#" * (MAX_FILE_BYTES + 1), 1, "", "more than"),
    ],
)
def test_read_says_where_and_what(text: str | bytes, line: int, key: str, says: str) -> None:
    error = refusal(text)
    first = error.findings[0]
    assert (first.file, first.line, first.key) == ("f.toml", line, key)
    assert says in first.message


def test_read_finds_all_mistakes_at_once() -> None:
    error = refusal("nope = 1\n[limits]\npids_max = 'x'\nnofile = -1\n")
    assert [finding.line for finding in error.findings] == [1, 3, 4]


def test_read_collects_a_bounded_number_of_mistakes() -> None:
    assert len(refusal("\n".join(f"k{number} = 1" for number in range(500))).findings) == 100
