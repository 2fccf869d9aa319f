"""Values: what may stand behind a key, as small parsers that say in words what they wanted.

Invariants
- A parser takes whatever the file held and returns the typed value, or raises `BadValue`; it never guesses.
- A flag is never a number, and NaN and infinity are no numbers.
- Sizes are bytes. Text may end in K, M, G or T, which are **binary**: `"1G"` is 1024 × 1024 × 1024 bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from coworkd.settings.findings import did_you_mean

Parser = Callable[[object], Any]

MAX_SIZE_BYTES = 2**63 - 1
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,19})([KMGT]?)\Z")
_MEANT_SIZE = re.compile(r"\s*([0-9]{1,19})\s*([kKmMgGtT])\s*(?:i?[bB])?\s*\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class BadValue(ValueError):
    """What stands there cannot be meant. `place` is the index in a list, where it is one element that is wrong."""

    def __init__(self, message: str, *, nearest: str | None = None, place: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.nearest = nearest
        self.place = place


def size(low: int = 1, high: int = MAX_SIZE_BYTES) -> Parser:
    """Bytes: a whole number, or text such as `"2800M"`; within `low` and `high`."""

    def parse(value: object) -> int:
        if type(value) is int:
            amount = value
        elif isinstance(value, str):
            amount = _parse_size_text(value)
        else:
            raise BadValue(f'wants a size in bytes, such as 4096 or "2800M", not {_shown(value)}')
        _check_within(amount, low, high, " bytes")
        return amount

    return parse


def _parse_size_text(text: str) -> int:
    match = _SIZE.match(text)
    if match is not None:
        return int(match[1]) * _UNITS[match[2]]
    meant = _MEANT_SIZE.match(text)
    close = f"{meant[1]}{meant[2].upper()}" if meant is not None else None
    hint = f"; did you mean {close!r}?" if close else ""
    raise BadValue(f"{_shown(text)} is not a size: digits and then K, M, G or T (binary units){hint}", nearest=close)


def size_text(amount: int) -> str:
    """The shortest spelling of `amount` bytes that `size` takes: `2800M`, or the digits."""
    for letter, unit in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if amount >= unit and amount % unit == 0:
            return f"{amount // unit}{letter}"
    return str(amount)


def integer(low: int, high: int) -> Parser:
    """A whole number within `low` and `high`."""

    def parse(value: object) -> int:
        if type(value) is not int:
            raise BadValue(f"wants a whole number, not {_shown(value)}")
        _check_within(value, low, high)
        return value

    return parse


def number(low: float, high: float) -> Parser:
    """A number within `low` and `high`, as a float."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadValue(f"wants a number, not {_shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise BadValue(f"wants a number, not {value}")
        _check_within(value, low, high)
        return float(value)

    return parse


def flag(value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise BadValue(f"wants true or false, not {_shown(value)}")
    return value


def text(value: object) -> str:
    """Text without NUL, not empty."""
    if not isinstance(value, str):
        raise BadValue(f"wants text, not {_shown(value)}")
    if not value or "\0" in value:
        raise BadValue("wants text that is not empty and has no NUL")
    return value


def name(value: object) -> str:
    """The name of a policy file without its ending."""
    if not isinstance(value, str):
        raise BadValue(f"wants a name, not {_shown(value)}")
    if not _NAME.match(value):
        raise BadValue(f"{_shown(value)} is not a name: 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first")
    return value


def absolute_path(value: object) -> str:
    """An absolute path without `..`."""
    path = text(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise BadValue(f"{_shown(path)} is not an absolute path without '..'")
    return path


def choice(*words: str) -> Parser:
    """One of `words`."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        hint, close = did_you_mean(value, words) if isinstance(value, str) else ("", None)
        raise BadValue(f"{_shown(value)} is not one of {', '.join(words)}{hint}", nearest=close)

    return parse


def listed(parser: Parser) -> Parser:
    """A list without repeats, each element by `parser`; as a tuple, in the order given."""

    def parse(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise BadValue(f"wants a list, not {_shown(value)}")
        parsed: list[Any] = []
        for place, element in enumerate(value):
            try:
                one = parser(element)
            except BadValue as error:
                raise BadValue(error.message, nearest=error.nearest, place=place) from error
            if one in parsed:
                raise BadValue(f"{_shown(element)} is listed twice", place=place)
            parsed.append(one)
        return tuple(parsed)

    return parse


def either(first: Parser, second: Parser) -> Parser:
    """What `first` takes, else what `second` takes; the words of refusal are `second`'s."""

    def parse(value: object) -> Any:
        try:
            return first(value)
        except BadValue:
            return second(value)

    return parse


def _check_within(value: float, low: float, high: float, unit: str = "") -> None:
    if value < low:
        raise BadValue(f"{_shown(value)} is too small: at least {low}{unit}")
    if value > high:
        raise BadValue(f"{_shown(value)} is too large: at most {high}{unit}")


def _shown(value: object) -> str:
    kind = {bool: "the flag ", list: "the list ", dict: "the table "}.get(type(value), "")
    try:
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
    except ValueError:
        shown = "a number with thousands of digits"  # int to text is bounded (sys.set_int_max_str_digits)
    return kind + (shown if len(shown) <= 80 else shown[:77] + "...")
