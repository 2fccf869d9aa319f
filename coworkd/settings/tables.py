"""Tables: TOML bytes and a schema → typed values by dotted key, each with the line it came from.

Invariants
- Everything wrong with a file is found in one go and raised together; a file with one mistake gives no value at all.
- A key the schema does not know is a mistake, so is a key given twice, and so is a table where a value belongs.
- Only keys that stand in the file are in the answer: defaults and layers are the caller's.

Sources: TOML 1.0.0; Python's `tomllib` (its messages end in `(at line L, column C)`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from coworkd.settings.findings import MAX_FINDINGS, BadFile, Finding, did_you_mean
from coworkd.settings.lines import KeyLines, scan_toml
from coworkd.settings.values import BadValue, Parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1024 * 1024
_AT_LINE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)\Z")


class Given(Struct, frozen=True):
    """A value and where it was given."""

    value: Any
    file: str
    line: int


def read_tables(data: bytes, *, file: str, schema: Mapping[str, Parser]) -> dict[str, Given]:
    """Return dotted key → value of the TOML in `data`; `schema` names every key there may be.

    `file` is only for messages. Raises `BadFile` with all findings.
    """
    text = decode_text(data, file)
    tree = _parse(text, file)
    lines = scan_toml(text)
    read = _Reading(file, schema, lines)
    read.table(tree, ())
    if read.findings:
        raise BadFile(read.findings)
    return read.given


def decode_text(data: bytes, file: str) -> str:
    """Return `data` as text, or raise `BadFile`: at most `MAX_FILE_BYTES`, UTF-8, no byte order mark."""
    if len(data) > MAX_FILE_BYTES:
        raise BadFile([Finding(file=file, line=1, key="", message=f"has more than {MAX_FILE_BYTES} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadFile([Finding(file=file, line=line, key="", message="is not UTF-8")]) from error
    if text.startswith("\ufeff"):
        raise BadFile([Finding(file=file, line=1, key="", message="begins with a byte order mark; save it without")])
    return text


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise BadFile([Finding(file=file, line=1, key="", message="is nested too deeply")]) from error
    except ValueError as error:  # TOMLDecodeError, and the limit on the digits of a number
        raise BadFile([_explain(str(error), text, file)]) from error
    return tree


def _explain(message: str, text: str, file: str) -> Finding:
    place = _AT_LINE.search(message)
    line = int(place[1]) if place is not None else text.count("\n") + 1
    what = message[: place.start()] if place is not None else message.removesuffix(" (at end of document)")
    repeats = scan_toml(text)
    for path, repeat_line in repeats.repeats:
        if repeat_line <= line:
            key = ".".join(map(str, path))
            said = f"is given twice, first on line {repeats.line(path)}; keep one"
            return Finding(file=file, line=repeat_line, key=key, message=said)
    return Finding(file=file, line=line, key="", message=f"is not TOML: {what}")


class _Reading:
    def __init__(self, file: str, schema: Mapping[str, Parser], lines: KeyLines) -> None:
        self.file = file
        self.schema = schema
        self.lines = lines
        self.tables = {key.rpartition(".")[0] for key in schema}
        self.given: dict[str, Given] = {}
        self.findings: list[Finding] = []

    def table(self, tree: Mapping[str, Any], above: tuple[str, ...]) -> None:
        for key, value in tree.items():
            path = (*above, key)
            dotted = ".".join(path)
            # A quoted key with a dot in it must not pass for a key inside a table.
            plain = "." not in key
            if plain and dotted in self.schema:
                self._value(dotted, path, value)
            elif plain and dotted in self.tables and isinstance(value, dict):
                self.table(value, path)
            elif plain and dotted in self.tables:
                self._add(path, f"is a table: write [{dotted}] and its keys below")
            else:
                self._unknown(path, dotted)

    def _value(self, dotted: str, path: tuple[str, ...], value: object) -> None:
        try:
            parsed = self.schema[dotted](value)
        except BadValue as error:
            self._add(path if error.place is None else (*path, error.place), error.message, error.nearest)
        else:
            self.given[dotted] = Given(parsed, self.file, self.lines.line(path))

    def _unknown(self, path: tuple[str, ...], dotted: str) -> None:
        known = [*self.schema, *(table for table in self.tables if table)]
        hint, close = did_you_mean(dotted, known)
        self._add(path, f"is not a key of this file{hint}", close)

    def _add(self, path: tuple[str | int, ...], message: str, close: str | None = None) -> None:
        if len(self.findings) < MAX_FINDINGS:
            key = ".".join(str(part) for part in path if not isinstance(part, int))
            self.findings.append(
                Finding(file=self.file, line=self.lines.line(path), key=key, message=message, nearest=close)
            )
