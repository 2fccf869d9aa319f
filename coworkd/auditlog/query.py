"""Query: the newest records that fit a filter.

Pure: lines in, newest first; records out, oldest first. Nothing is verified here (`verify` does that); a line that
cannot be read is told as a record of kind `unreadable`, never left out in silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from coworkd.auditlog.chain import Broken, parse_record


class Filter(Struct, frozen=True, kw_only=True):
    """What to keep: one of `kinds` where some are named, each exact or a prefix that ends with `.`.

    `since <= at < until`, epoch seconds.
    """

    session: str | None = None
    process: str | None = None
    kinds: tuple[str, ...] = ()
    refused_only: bool = False
    """Only decisions that something was not allowed."""
    since: float | None = None
    until: float | None = None

    def accepts(self, record: dict[str, Any]) -> bool:
        """Whether this record is wanted."""
        if self.session is not None and record.get("session") != self.session:
            return False
        if self.process is not None and record.get("process") != self.process:
            return False
        if self.kinds and not self._names(str(record.get("kind", ""))):
            return False
        if self.refused_only and record.get("allowed") is not False:
            return False
        at = record.get("at", 0.0)
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def _names(self, kind: str) -> bool:
        return any(kind == one or (one.endswith(".") and kind.startswith(one)) for one in self.kinds)


def tail(
    lines: Iterable[bytes], wanted: Filter, *, limit: int, limit_bytes: int
) -> tuple[tuple[dict[str, Any], ...], bool]:
    """The newest `limit` records of `lines` that fit, oldest first, and whether `limit_bytes` left some of them out."""
    found: deque[dict[str, Any]] = deque()
    room = limit_bytes
    for line in lines:
        if len(found) >= limit:
            break
        try:
            record = parse_record(line)
        except Broken as error:
            record = {"kind": "unreadable", "reason": str(error)}
        if not wanted.accepts(record):
            continue
        room -= len(line)
        if room < 0:
            return tuple(found), True
        found.appendleft(record)
    return tuple(found), False
