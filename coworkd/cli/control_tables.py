"""Tables and times for people. What a guest sent is shown, never obeyed: control characters are escaped."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO


def shown(value: object) -> str:
    """A value as one line without control characters, so that a file name cannot drive the terminal."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = "-" if value is None else str(value)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO | None = None) -> None:
    """Columns as wide as they need; the last one is not padded."""
    texts = [list(head), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    for row in texts:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip(), file=out or sys.stdout)


def print_fields(fields: Mapping[str, object], out: TextIO | None = None) -> None:
    """One `name  value` a line."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name.ljust(width)}  {shown(value)}", file=out or sys.stdout)


def clock(at: float) -> str:
    """A time of the guest's, in local time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def span(seconds: float) -> str:
    """A duration, in its two largest units."""
    whole = max(0, int(seconds))
    for unit_s, unit, below_s, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit}{whole % unit_s // below_s:02d}{below}"
    return f"{whole}s"
