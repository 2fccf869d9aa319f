"""`settings.lines`: where keys stand, in every spelling TOML has for them."""

from __future__ import annotations

import pytest

from coworkd.settings.lines import KeyPath, scan_toml

DOCUMENT = '''\
# limits.pids_max = 1   (a comment)
top = """
limits.memory_max = "no key: text"
[limits]
"""

[limits]   # table
pids_max = 3
"quoted \\u006bey" = 'literal # no comment'
deep.er = { inside = [1, { x = 2 }], "last" = true }

[folders]
modes = [
  "ro",   # ], "
  'rw]',
]
[[things]]
a = 1
[[things]]
a = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("limits",), 7),
        (("limits", "pids_max"), 8),
        (("limits", "quoted key"), 9),
        (("limits", "deep", "er"), 10),
        (("limits", "deep", "er", "inside", 1, "x"), 10),
        (("limits", "deep", "er", "last"), 10),
        (("folders", "modes"), 13),
        (("folders", "modes", 0), 14),
        (("folders", "modes", 1), 15),
        (("things", 0, "a"), 18),
        (("things", 1, "a"), 20),
    ],
)
def test_scan_finds_the_line_of_each_key(path: KeyPath, line: int) -> None:
    found = scan_toml(DOCUMENT)
    assert found.first[path] == line
    assert scan_toml(DOCUMENT.replace("\n", "\r\n")).first[path] == line


def test_scan_takes_text_in_strings_for_no_key() -> None:
    found = scan_toml(DOCUMENT)
    assert ("limits", "memory_max") not in found.first
    assert found.repeats == []


def test_line_of_an_unknown_path_is_its_tables() -> None:
    assert scan_toml(DOCUMENT).line(("limits", "absent", "more")) == 7
    assert scan_toml(DOCUMENT).line(("absent",)) == 1


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n\na = 2\n", ("a",), 3),
        ("[t]\nk = 1\n[t]\n", ("t",), 3),
        ("t.k = 1\nt.'k' = 2\n", ("t", "k"), 2),
        ("t = { k = 1, k = 2 }\n", ("t", "k"), 1),
    ],
)
def test_scan_tells_what_is_given_twice(text: str, path: KeyPath, line: int) -> None:
    assert scan_toml(text).repeats == [(path, line)]


@pytest.mark.parametrize("text", ["=", "[", "a", "a = ", "a = [", "a = {", 'a = """', "a = [" * 5000, '"\\q" = 1', "]"])
def test_scan_of_broken_text_ends_quietly(text: str) -> None:
    assert isinstance(scan_toml(text).first, dict)
