"""Findings: what is wrong with a file, where, and what was probably meant.

Invariants: a finding always names its file; `line` counts from 1; `key` is a dotted path, empty where the file as a
whole is meant; a `BadFile` holds at least one finding and is told by its first.

Does not read files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from coworkd.model.errors import InvalidParams

MAX_FINDINGS = 100
"""More than these of one file are not collected: who has so many starts with the first ones."""


class Finding(Struct, frozen=True, kw_only=True):
    """One mistake. `nearest` is the right spelling that is closest to what stands there, where one is close."""

    file: str
    line: int
    key: str
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        """`file:line: key: message`, as compilers and editors know it."""
        place = f"{self.file}:{self.line}: "
        return place + (f"{self.key}: {self.message}" if self.key else self.message)


class BadFile(InvalidParams):
    """A file that cannot be used. `details` is the first finding's file, line, key and nearest; `findings` has all."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = findings[0]
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(f"{first}{more}", file=first.file, line=first.line, key=first.key)
        if first.nearest is not None:
            self.details["nearest"] = first.nearest
        self.findings = tuple(findings)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` most like `word`, None where none is; a key that only misses its table comes first."""
    known = list(words)
    leaf = word.rpartition(".")[2]
    for candidate in known:
        if candidate.rpartition(".")[2] == leaf:
            return candidate
    close = difflib.get_close_matches(word[:100], known, n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> tuple[str, str | None]:
    """The ending of a sentence (`; did you mean …?`, else empty) and the nearest word."""
    close = nearest(word, words)
    return (f"; did you mean {close!r}?" if close is not None else ""), close
