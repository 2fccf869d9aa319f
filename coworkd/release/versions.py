"""Versions of releases: `1.4.2`, two to four whole numbers with dots between, compared one after the other.

Rules
- What is left away is 0: `1.4` and `1.4.0` are equal.
- No sign, no leading zero, no letter. A pre-release (`1.4.0rc1`) has no place in this order, so it is refused and not guessed at:
  release it under a number of its own.
"""

from __future__ import annotations

import re

from coworkd.release.refusal import ReleaseRefused

_VERSION = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){1,3}\Z", re.ASCII)
_PARTS = 4

Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """Four numbers. Raises `ReleaseRefused`."""
    if not _VERSION.match(text):
        raise ReleaseRefused("malformed", f"{text[:40]!r} is no version: two to four whole numbers, such as 1.4.2")
    numbers = tuple(int(part) for part in text.split("."))
    return numbers + (0,) * (_PARTS - len(numbers))
