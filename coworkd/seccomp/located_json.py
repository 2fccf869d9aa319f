"""JSON that remembers on which line everything stood, so that an error in a policy file can name file, line and key.

Rules: strict JSON (RFC 8259; a byte order mark is let pass) in UTF-8 and nothing more: no comments, no trailing commas, no NaN. A key that
stands twice in one object is an error, for a reader would see one and the program obey the other. Bounded: `MAX_BYTES`, `MAX_DEPTH`.

Pure. Every fault is `InvalidParams` with `file`, `line` and, where there is one, `key`.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import Any, NoReturn

from msgspec import Struct

from coworkd.model.errors import InvalidParams

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32

_TOKEN = re.compile(
    r'(?P<space>[ \t\r\n]+)|(?P<punct>[{}\[\]:,])|(?P<string>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<word>true|false|null)"
)


class Located(Struct, frozen=True):
    """A value and its line. Objects are dicts of key → `Located` (their `line` is that of the key), arrays lists of `Located`."""

    value: Any
    line: int


def fail(name: str, line: int, message: str, *, key: str | None = None) -> NoReturn:
    """Raise the one kind of error this file's readers raise."""
    raise InvalidParams(f"{name}:{line}: {message}", file=name, line=line, key=key)


def nearest_word(word: str, words: object) -> str:
    """`; did you mean X?`, or nothing."""
    found = get_close_matches(word, list(words), n=1) if isinstance(words, (list, tuple, set, frozenset, dict)) else []
    return f"; did you mean {found[0]!r}?" if found else ""


def parse_json(data: bytes, name: str) -> Located:
    """Parse one whole document; raises `InvalidParams`."""
    if len(data) > MAX_BYTES:
        fail(name, 1, f"{len(data)} bytes; a policy file has at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fail(name, data[: error.start].count(b"\n") + 1, "not UTF-8")
    parser = _Parser(text, name)
    result = parser.value(0)
    if parser.kind != "end":
        parser.unexpected("the end of the file")
    return result


class _Parser:
    """One token of look-ahead: `kind`, `text`, `line`."""

    def __init__(self, text: str, name: str) -> None:
        self._source, self._name, self._at = text, name, 0
        self._next_line = 1
        self.advance()

    def advance(self) -> None:
        while True:
            self.line = self._next_line
            if self._at == len(self._source):
                self.kind, self.text = "end", ""
                return
            match = _TOKEN.match(self._source, self._at)
            if match is None or match.lastgroup is None:
                fail(self._name, self.line, f"not JSON at {self._source[self._at : self._at + 20]!r}")
            self._at = match.end()
            self.kind, self.text = match.lastgroup, match.group()
            if self.kind != "space":
                return
            self._next_line += self.text.count("\n")

    def unexpected(self, wanted: str) -> NoReturn:
        found = "the end of the file" if self.kind == "end" else repr(self.text[:40])
        fail(self._name, self.line, f"{found} where {wanted} should be")

    def expect(self, punctuation: str) -> None:
        if self.text != punctuation:
            self.unexpected(repr(punctuation))
        self.advance()

    def value(self, depth: int) -> Located:
        line = self.line
        if depth > MAX_DEPTH:
            fail(self._name, line, f"nested deeper than {MAX_DEPTH}")
        if self.text == "{":
            return Located(self.members(depth), line)
        if self.text == "[":
            return Located(self.elements(depth), line)
        if self.kind not in ("string", "number", "word"):
            self.unexpected("a value")
        if len(self.text) > 64 and self.kind == "number":
            fail(self._name, line, "a number of more than 64 digits")
        scalar = self.scalar()
        self.advance()
        return Located(scalar, line)

    def scalar(self) -> Any:
        decoded = json.loads(self.text)
        if isinstance(decoded, str) and any("\ud800" <= character <= "\udfff" for character in decoded):
            fail(self._name, self.line, f"{self.text[:40]} holds half of a surrogate pair, which is no character")
        return decoded

    def members(self, depth: int) -> dict[str, Located]:
        self.advance()
        found: dict[str, Located] = {}
        while self.text != "}":
            if self.kind != "string":
                self.unexpected("a key")
            key, line = self.scalar(), self.line
            if key in found:
                fail(self._name, line, f"key {key!r} stands here and on line {found[key].line}; keep one", key=key)
            self.advance()
            self.expect(":")
            found[key] = Located(self.value(depth + 1).value, line)
            if not self.separated("}"):
                break
        self.expect("}")
        return found

    def elements(self, depth: int) -> list[Located]:
        self.advance()
        found: list[Located] = []
        while self.text != "]":
            found.append(self.value(depth + 1))
            if not self.separated("]"):
                break
        self.expect("]")
        return found

    def separated(self, end: str) -> bool:
        """Whether a comma stands here and another item follows it."""
        if self.text != ",":
            return False
        self.advance()
        if self.text == end:
            self.unexpected("another item")
        return True
