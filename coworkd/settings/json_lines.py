"""JSON lines: JSON bytes → the object in them, and the line of every key path. (The lines of TOML: `settings.lines`.)

Invariants
- A key given twice, a top level that is no object, NaN and infinity, nesting past the interpreter's limit and bytes that are
  not UTF-8 are refused: `json` alone would let the last of two keys win in silence.
- The scan for lines runs only over text that `json` has accepted, and never decides what a file means.

Source: RFC 8259.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from coworkd.settings.findings import BadFile, Finding
from coworkd.settings.lines import KeyLines, KeyPath
from coworkd.settings.tables import decode_text

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


class _Repeated(ValueError):
    """An object has a key twice."""


def parse_json(data: bytes, *, file: str) -> tuple[dict[str, Any], KeyLines]:
    """Return the object in `data` and where its keys stand. Raises `BadFile`."""
    text = decode_text(data, file)
    try:
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except _Repeated as error:
        raise BadFile([_explain_repeat(text, file, str(error))]) from error
    except RecursionError as error:
        raise BadFile([Finding(file=file, line=1, key="", message="is nested too deeply")]) from error
    except json.JSONDecodeError as error:
        raise BadFile([Finding(file=file, line=error.lineno, key="", message=f"is not JSON: {error.msg}")]) from error
    except ValueError as error:  # NaN, and the limit on the digits of a number
        raise BadFile([Finding(file=file, line=1, key="", message=f"is not JSON: {error}")]) from error
    if not isinstance(tree, dict):
        raise BadFile([Finding(file=file, line=1, key="", message="must be one JSON object: {…}")])
    return tree, scan_json(text)


def scan_json(text: str) -> KeyLines:
    """Return the lines of every key and element of the valid JSON `text`, and the keys given twice in one object."""
    found = KeyLines()
    stack: list[_Container] = []
    line, counted = 1, 0
    for symbol in _TOKEN.finditer(text):
        line += text.count("\n", counted, symbol.start())
        counted = symbol.start()
        _take(symbol.group(), line, stack, found)
    return found


class _Container:
    """An open object or array: where it is, and which key or place comes next."""

    def __init__(self, path: KeyPath, *, is_object: bool) -> None:
        self.path = path
        self.is_object = is_object
        self.place = 0
        self.key: str | None = None
        self.seen: set[str] = set()

    def child(self) -> KeyPath:
        return (*self.path, self.key if self.is_object and self.key is not None else self.place)


def _take(symbol: str, line: int, stack: list[_Container], found: KeyLines) -> None:
    top = stack[-1] if stack else None
    if symbol in ("]", "}"):
        stack.pop()
    elif symbol == ",":
        if top is not None:
            top.place, top.key = top.place + 1, None
    elif symbol == ":":
        pass
    elif top is not None and top.is_object and top.key is None:
        key = json.loads(symbol)
        top.key = key
        path = (*top.path, key)
        if key in top.seen:
            found.repeats.append((path, line))
        top.seen.add(key)
        found.first.setdefault(path, line)
    else:
        path = top.child() if top is not None else ()
        if top is not None:
            found.first.setdefault(path, line)
        if symbol in ("[", "{"):
            stack.append(_Container(path, is_object=symbol == "{"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Repeated(key)
            seen.add(key)
    return made


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number JSON knows")


def _explain_repeat(text: str, file: str, key: str) -> Finding:
    try:
        found = scan_json(text)
    except (ValueError, IndexError):  # refused half-way: what comes after the repeated key may not be JSON at all
        found = KeyLines()
    for path, line in found.repeats:
        dotted = ".".join(map(str, path))
        return Finding(
            file=file, line=line, key=dotted, message=f"is given twice, first on line {found.line(path)}; keep one"
        )
    return Finding(file=file, line=1, key=key, message="is given twice; keep one")
