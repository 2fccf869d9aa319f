"""A unified diff of one changed path, for people who look: text only, of a size that a person may read.

Rules: both sides are plain files (or nothing) under `DIFF_BYTES`, in UTF-8 and without NUL. Comparing lines can take quadratic time,
and the session chose them: it ends after `DIFF_S`, and then there is no diff.
"""

from __future__ import annotations

import difflib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from coworkd.workers.stage_changes import Change
from coworkd.workers.stage_room import Stage
from coworkd.workers.stage_tree import Tree

DIFF_BYTES = 1024 * 1024
DIFF_S = 5.0
_CONTEXT_LINES = 3


class NoDiff(Exception):
    """There is none to show; the text says why."""


def make_diff(stage: Stage, change: Change, *, now: Callable[[], float] = time.monotonic) -> bytes:
    """The diff from what the source has to what the session has. Raises `NoDiff`, `OSError`."""
    before = _read_text(stage.source, change.path, change.old)
    after = _read_text(stage.upper, change.path, change.new)
    name = change.path.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    head = (
        f"a/{name}" if change.old is not None else "/dev/null",
        f"b/{name}" if change.new is not None else "/dev/null",
    )
    matcher = _Bounded(_split(before), _split(after), now() + DIFF_S, now)
    return "".join(_unified(matcher, *head)).encode()


def _read_text(tree: Tree, path: bytes, found: os.stat_result | None) -> str:
    if found is None:
        return ""
    if not stat.S_ISREG(found.st_mode):
        raise NoDiff("it is not a plain file on both sides")
    if found.st_size > DIFF_BYTES:
        raise NoDiff(f"it is larger than {DIFF_BYTES} bytes")
    fd = tree.open(path, os.O_RDONLY)
    with open(fd, "rb") as file:
        data = file.read(DIFF_BYTES + 1)
    if len(data) > DIFF_BYTES:
        raise NoDiff(f"it is larger than {DIFF_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NoDiff("it is not text") from None
    if "\0" in text:
        raise NoDiff("it is not text")
    return text


def _split(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one."""
    *whole, rest = text.split("\n")
    return [line + "\n" for line in whole] + ([rest] if rest else [])


class _Bounded(difflib.SequenceMatcher[str]):
    """A matcher that gives up at a deadline."""

    def __init__(self, before: list[str], after: list[str], deadline: float, now: Callable[[], float]) -> None:
        self._deadline = deadline
        self._now = now
        self.before, self.after = before, after
        super().__init__(None, before, after)

    def find_longest_match(self, *span: Any, **named: Any) -> difflib.Match:
        if self._now() > self._deadline:
            raise NoDiff("the two are too different to be compared line by line")
        return super().find_longest_match(*span, **named)


def _unified(matcher: _Bounded, before_name: str, after_name: str) -> Iterator[str]:
    groups = list(matcher.get_grouped_opcodes(_CONTEXT_LINES))
    if not groups:
        return
    yield f"--- {before_name}\n+++ {after_name}\n"
    for group in groups:
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n"
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from _lines(" ", matcher.before[old_from:old_to])
                continue
            yield from _lines("-", matcher.before[old_from:old_to])
            yield from _lines("+", matcher.after[new_from:new_to])


def _lines(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n\\ No newline at end of file\n"


def _range(begin: int, end: int) -> str:
    """Lines from `begin` to `end` as a unified diff counts them: from 1, and one before where there are none."""
    length = end - begin
    if length == 1:
        return str(begin + 1)
    return f"{begin + 1 if length else begin},{length}"
