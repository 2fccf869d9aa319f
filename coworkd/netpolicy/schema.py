"""Schema: what may stand in a JSON object, as small checks that are put together; every mistake is told with its key.

Rules
- A check looks at one value and reports to its `Place`; it never raises and never changes anything.
- `null` is a value like any other: only a key that is not there is absent.
- A flag is no number, a whole number may be written `443.0`, the length of a text counts UTF-16 units: as in JavaScript.

Does not read JSON; does not know what any key means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coworkd.netpolicy.patterns import Wrong
from coworkd.settings import BadValue, Finding, Parser
from coworkd.settings.findings import MAX_FINDINGS, did_you_mean
from coworkd.settings.lines import KeyLines, KeyPath


class Findings:
    """What was found in one file, or in a value without lines."""

    def __init__(self, file: str, lines: KeyLines | None = None) -> None:
        self._file = file
        self._lines = lines
        self.found: list[Finding] = []
        self.count = 0

    @property
    def root(self) -> Place:
        return Place(self, ())

    def add(self, path: KeyPath, message: str, nearest: str | None) -> None:
        """Take a finding in; past `MAX_FINDINGS` it is only counted."""
        self.count += 1
        if len(self.found) < MAX_FINDINGS:
            line = self._lines.line(path) if self._lines is not None else 1
            self.found.append(Finding(file=self._file, line=line, key=dotted(path), message=message, nearest=nearest))


class Place:
    """Where a value stands."""

    __slots__ = ("_findings", "path")

    def __init__(self, findings: Findings, path: KeyPath) -> None:
        self._findings = findings
        self.path = path

    @property
    def mistakes(self) -> int:
        """How many there were so far, here and elsewhere."""
        return self._findings.count

    def below(self, part: str | int) -> Place:
        return Place(self._findings, (*self.path, part))

    def refuse(self, message: str, nearest: str | None = None) -> None:
        """Say what is wrong here; `nearest` is asked after in the message if it is not in there yet."""
        if nearest is not None and repr(nearest) not in message:
            message = f"{message}; did you mean {nearest!r}?"
        self._findings.add(self.path, message, nearest)


Check = Callable[[object, Place], None]


def dotted(path: KeyPath) -> str:
    """`("network", "allowedDomains", 1)` → `network.allowedDomains[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def units(text: str) -> int:
    """The length of `text` in UTF-16 units."""
    return len(text) + sum(char > "\uffff" for char in text)


def flag(value: object, place: Place) -> None:
    if not isinstance(value, bool):
        place.refuse("wants true or false")


def text(least: int = 0, most: int | None = None) -> Check:
    """Text of `least` to `most` characters."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, str):
            place.refuse("wants text")
        elif units(value) < least:
            place.refuse("wants text that is not empty")
        elif most is not None and units(value) > most:
            place.refuse(f"wants text of at most {most} characters")

    return check


def whole(low: float, high: float) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: object, place: Place) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value % 1 != 0:
            place.refuse(f"wants a whole number from {low} to {high}")
        elif not low <= value <= high:
            shown = value if abs(value) < 1e15 else "that number"  # int to text is bounded
            place.refuse(f"{shown} is not from {low} to {high}")

    return check


def one_of(*words: str) -> Check:
    """One of `words`."""

    def check(value: object, place: Place) -> None:
        if value not in words:
            close = did_you_mean(value, words)[1] if isinstance(value, str) else None
            place.refuse(f"wants one of {', '.join(words)}", close)

    return check


def told(judge: Callable[[str], Wrong | None], wants: str) -> Check:
    """Text of which `judge` says what is wrong."""

    def check(value: object, place: Place) -> None:
        wrong = judge(value) if isinstance(value, str) else (f"wants {wants}", None)
        if wrong is not None:
            place.refuse(*wrong)

    return check


def list_of(element: Check, least: int = 0) -> Check:
    """A list of at least `least`."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, (list, tuple)):
            place.refuse("wants a list")
        elif len(value) < least:
            place.refuse("wants a list that is not empty")
        else:
            for index, one in enumerate(value):
                element(one, place.below(index))

    return check


def map_of(element: Check) -> Check:
    """An object of any keys."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, Mapping):
            place.refuse("wants an object")
            return
        for key, one in value.items():
            element(one, place.below(str(key)))

    return check


def table(fields: Mapping[str, Check], *, required: tuple[str, ...] = (), strict: bool = False) -> Check:
    """An object of `fields`; other keys are passed over, and mistakes where `strict`."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, Mapping):
            place.refuse("wants an object")
            return
        for key, field in fields.items():
            if key in value:
                field(value[key], place.below(key))
            elif key in required:
                others = [str(other) for other in value if other not in fields]
                near, close = did_you_mean(key, others)
                said = f"is missing{near.replace('did you mean', 'is it')}"
                place.below(key).refuse(said, None if close is None else key)
        for key in value:
            if strict and key not in fields:
                hint, close = did_you_mean(str(key), fields)
                place.below(str(key)).refuse(f"is not a key there is here{hint}", close)

    return check


def parsed(parser: Parser) -> Check:
    """What a parser of `settings.values` takes."""

    def check(value: object, place: Place) -> None:
        try:
            parser(list(value) if isinstance(value, tuple) else value)
        except BadValue as error:
            (place if error.place is None else place.below(error.place)).refuse(error.message, error.nearest)

    return check


def both(first: Check, second: Callable[[Any, Place], None]) -> Check:
    """`first`, and where that found nothing `second`, which may rely on it."""

    def check(value: object, place: Place) -> None:
        before = place.mistakes
        first(value, place)
        if place.mistakes == before:
            second(value, place)

    return check
