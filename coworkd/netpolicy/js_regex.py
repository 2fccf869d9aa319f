"""JavaScript regular expressions: whether `new RegExp(text)` would take a text, and how many groups it captures.

For `credentials.*.extract` of srt-settings, which must be such an expression with at least one group. Nothing is ever matched.

Known to differ: identifiers of named groups are taken by Python's rules.

Source: ECMA-262, 22.2.1 and Annex B.1.2 (without flags, so the lenient grammar of browsers; `\\k` is strict only beside named groups).
"""

from __future__ import annotations

import re

_QUANTIFIER = re.compile(r"(?:[*+?]|\{([0-9]+)(?:,([0-9]*))?\})\??")
_CLASS_ATOM = re.compile(
    r"\\(?:c[A-Za-z0-9_]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[0-3][0-7]{0,2}|[4-7][0-7]?|[\s\S])|[^\]\\]"
)
_NAME = re.compile(r"<([^>]*)>")
_SETS = frozenset("dDsSwW")
_CONTROLS = {"b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


class BadRegex(ValueError):
    """JavaScript would not take it."""


def count_groups(text: str) -> int:
    """Return how many groups the JavaScript expression `text` captures. Raises `BadRegex`."""
    scan = _Scan(text)
    scan.disjunction(0)
    if scan.at < len(text):
        raise BadRegex("has a ')' that closes nothing")
    if scan.names and scan.stray_k:
        raise BadRegex("has a '\\k' that names no group")
    missing = scan.references - set(scan.names)
    if scan.names and missing:
        raise BadRegex(f"refers to a group {min(missing)!r} that is not there")
    return scan.groups


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.groups = 0
        self.names: list[str] = []
        self.references: set[str] = set()
        self.stray_k = False

    def disjunction(self, depth: int) -> None:
        """Read up to the end or a ')' that is not of this level."""
        if depth > 200:
            raise BadRegex("is nested too deeply")
        while self.at < len(self.text) and self.text[self.at] != ")":
            char = self.text[self.at]
            if char == "|":
                self.at += 1
            elif _QUANTIFIER.match(self.text, self.at):
                raise BadRegex("has a repetition of nothing")
            elif self._term(char, depth):
                self._quantifier()

    def _term(self, char: str, depth: int) -> bool:
        """Read one; whether it may be repeated."""
        if char == "(":
            return self._group(depth)
        if char == "[":
            self._class()
            return True
        if char == "\\":
            return self._escape()
        self.at += 1
        return char not in "^$"

    def _group(self, depth: int) -> bool:
        repeatable = True
        if self.text.startswith("(?", self.at):
            head = next(
                (head for head in ("(?:", "(?=", "(?!", "(?<=", "(?<!") if self.text.startswith(head, self.at)), None
            )
            if head is not None:
                self.at += len(head)
                repeatable = not head.startswith("(?<")
            else:
                self.at += 2
                self.groups += 1
                name = self._name()
                if name in self.names:
                    raise BadRegex(f"has two groups {name!r}")
                self.names.append(name)
        else:
            self.at += 1
            self.groups += 1
        self.disjunction(depth + 1)
        if not self.text.startswith(")", self.at):
            raise BadRegex("has a group that is not closed")
        self.at += 1
        return repeatable

    def _name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None or not found[1].replace("$", "_").isidentifier():
            raise BadRegex("has a group that JavaScript does not know")
        self.at = found.end()
        return found[1]

    def _escape(self) -> bool:
        if self.at + 1 >= len(self.text):
            raise BadRegex("ends in a '\\'")
        escaped = self.text[self.at + 1]
        self.at += 2
        if escaped == "k":
            found = _NAME.match(self.text, self.at)
            if found is None:
                self.stray_k = True
            else:
                self.references.add(found[1])
        return escaped not in "bB"

    def _class(self) -> None:
        self.at += 1
        if self.text.startswith("^", self.at):
            self.at += 1
        values: list[int | None] = []
        while not self.text.startswith("]", self.at):
            found = _CLASS_ATOM.match(self.text, self.at)
            if found is None:
                raise BadRegex("has a '[' that is not closed")
            self.at = found.end()
            low = _code(found.group())
            dash = self.text.startswith("-", self.at) and _CLASS_ATOM.match(self.text, self.at + 1)
            if not dash:
                continue
            self.at = dash.end()
            high = _code(dash.group())
            values = [low, high]
            if low is not None and high is not None and low > high:
                raise BadRegex(f"has a range that runs backwards: {values}")
        self.at += 1

    def _quantifier(self) -> None:
        found = _QUANTIFIER.match(self.text, self.at)
        if found is None:
            return
        self.at = found.end()
        if found[2] and int(found[1]) > int(found[2]):
            raise BadRegex("has a repetition that runs backwards")


def _code(atom: str) -> int | None:
    """The character of a class atom; None for a set of them."""
    if not atom.startswith("\\"):
        return ord(atom)
    kind, rest = atom[1], atom[2:]
    if kind in _SETS:
        return None
    if kind in "xu" and rest:
        return int(rest, 16)
    if kind == "c" and rest:
        return ord(rest) % 32
    if kind in "01234567":
        return int(atom[1:], 8)
    return _CONTROLS.get(kind, ord(kind))
