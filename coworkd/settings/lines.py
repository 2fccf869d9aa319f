"""Lines: where each key of a TOML text stands, which `tomllib` does not tell.

Invariants
- Only for telling people where to look. What a file *means* is `tomllib`'s word alone; this scan never decides it.
- Never raises and always ends: at the first thing it does not understand it stops with what it has found.
- A path is the keys from the root, array places as integers: `("limits", "pids_max")`, `("folders", "modes", 2)`.

Source: TOML 1.0.0 (keys, tables, strings; the text is taken as UTF-8 with `\\r\\n` read as `\\n`).
"""

from __future__ import annotations

import bisect
import contextlib
import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KeyPath = tuple[str | int, ...]

_BETWEEN = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^\s,\]}\n#][^,\]}\n#]*")


class KeyLines:
    """First line of each path, and the paths given again."""

    def __init__(self) -> None:
        self.first: dict[KeyPath, int] = {}
        self.repeats: list[tuple[KeyPath, int]] = []

    def line(self, path: KeyPath) -> int:
        """The line of `path`, else of the nearest table around it, else 1."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.first:
                return self.first[path[:end]]
        return 1


class _Stop(Exception):
    """The scan met something it does not understand."""


def scan_toml(text: str) -> KeyLines:
    """Return the lines of every key in `text`; of broken TOML, those before the place that broke the scan."""
    scan = _TomlScan(text)
    with contextlib.suppress(_Stop, RecursionError):  # telling fewer lines is all that can go wrong here
        scan.document()
    return scan.found


class _TomlScan:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.found = KeyLines()
        self._newlines = [match.start() for match in re.finditer("\n", self.text)]
        self._assigned: set[KeyPath] = set()
        self._elements: dict[KeyPath, int] = {}

    def document(self) -> None:
        prefix: KeyPath = ()
        while True:
            self._skip(_BETWEEN)
            if self.at >= len(self.text):
                return
            prefix = self._header() if self._peek("[") else self._assignment(prefix)

    def _header(self) -> KeyPath:
        start = self.at
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path = self._key_path()
        self._expect("]")
        if array:
            self._expect("]")
            self._note(path, start)
            place = self._elements.get(path, 0)
            self._elements[path] = place + 1
            path = (*path, place)
            self._note(path, start)
            return path
        self._assign(path, start)
        return path

    def _assignment(self, prefix: KeyPath) -> KeyPath:
        start = self.at
        path = prefix + self._key_path()
        self._expect("=")
        self._assign(path, start)
        self._value(path)
        return prefix

    def _key_path(self) -> KeyPath:
        keys: list[str] = []
        while True:
            self._skip(_BLANK)
            if (bare := _BARE_KEY.match(self.text, self.at)) is not None:
                keys.append(bare.group())
                self.at = bare.end()
            elif (quoted := _QUOTED_KEY.match(self.text, self.at)) is not None:
                keys.append(_unquote(quoted.group()))
                self.at = quoted.end()
            else:
                raise _Stop
            self._skip(_BLANK)
            if not self._peek("."):
                return tuple(keys)
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        else:
            match = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            if match is None:
                raise _Stop
            self.at = match.end()

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        place = 0
        while True:
            self._skip(_BETWEEN)
            if self._peek("]"):
                self.at += 1
                return
            self._note((*path, place), self.at)
            self._value((*path, place))
            place += 1
            self._skip(_BETWEEN)
            if not self._peek("]"):
                self._expect(",")

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self._skip(_BETWEEN)
            if self._peek("}"):
                self.at += 1
                return
            self._assignment(path)
            self._skip(_BETWEEN)
            if not self._peek("}"):
                self._expect(",")

    def _assign(self, path: KeyPath, start: int) -> None:
        if path in self._assigned:
            self.found.repeats.append((path, self._line_at(start)))
        self._assigned.add(path)
        self._note(path, start)

    def _note(self, path: KeyPath, start: int) -> None:
        line = self._line_at(start)
        for end in range(1, len(path) + 1):
            self.found.first.setdefault(path[:end], line)

    def _line_at(self, offset: int) -> int:
        return bisect.bisect_left(self._newlines, offset) + 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _peek(self, char: str) -> bool:
        return self.text.startswith(char, self.at)

    def _expect(self, char: str) -> None:
        self._skip(_BLANK)
        if not self._peek(char):
            raise _Stop
        self.at += 1


def _unquote(token: str) -> str:
    try:
        table: dict[str, Any] = tomllib.loads(f"key = {token}")
    except ValueError as error:
        raise _Stop from error
    return str(table["key"])
