"""What the host keeps of a guest in files: bounded, one line a record, whatever the guest sends.

    2026/02/28 15:35:54 [process:7] started PID 812 session=demo
        coworkd.log, as people know it; times are this host's
    {"at": …, "session": …, "host": …, "port": …, "verdict": …}
        egress.log, JSON Lines

Rules
- A guest is a stranger here: characters that break, hide or reorder a line are escaped, and every part of a line is cut.
- A file that is full becomes `NAME.1`, the one before `NAME.2`, and so on up to `keep`; the oldest goes. 0600, never through a symlink.
- A disk that takes no more stops nobody: lines are counted, and the number stands in the file once it takes some again.

Blocking: `BoundedLog.write` is called by `trio.to_thread.run_sync`, one caller at a time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from coworkd.model.calls import LogLine

LIMIT_BYTES = 8 << 20
KEEP = 3
_COMPONENT_LIMIT = 64
_MESSAGE_LIMIT = 8192
_VALUE_LIMIT = 1024
_FIELDS_LIMIT = 64
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str, limit: int) -> str:
    """`text` on one line, cut at `limit` characters."""
    shown = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def compose_text(line: LogLine, localtime: Callable[[float], time.struct_time] = time.localtime) -> str:
    """A line of the guest's log as it stands in coworkd.log, without its end."""
    shown = [
        f" {escape(name, _COMPONENT_LIMIT)}={escape(str(value), _VALUE_LIMIT)}"
        for name, value in list(line.fields.items())[:_FIELDS_LIMIT]
    ]
    try:
        when = time.strftime("%Y/%m/%d %H:%M:%S", localtime(line.at))
    except (OverflowError, ValueError, OSError):  # no time of this world
        when = "????/??/?? ??:??:??"
    return f"{when} [{escape(line.component, _COMPONENT_LIMIT)}] {escape(line.message, _MESSAGE_LIMIT)}{''.join(shown)}"


def compose_note(message: str, at: float) -> str:
    """A line of this program's own between the guest's."""
    return compose_text(LogLine(at=at, level="warning", component="cowork-vm", message=message, fields={}))


def compose_record(fields: dict[str, Any]) -> str:
    """One JSON line; texts are escaped by JSON itself, what could reorder a terminal as well."""
    text = msgspec.json.encode(fields).decode("utf-8", "replace")
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class BoundedLog:
    """An append-only text file and its predecessors. Opened at the first line; `close` it."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES, keep: int = KEEP, as_note: bool = True) -> None:
        """`as_note`: lines that a full disk refused are told as a line of the known look, else as a JSON one."""
        self.path = path
        self.lost = 0
        """Lines that were not written since the last that was."""
        self._limit = limit_bytes
        self._keep = keep
        self._as_note = as_note
        self._fd = -1
        self._size = 0

    def write(self, lines: Iterable[str]) -> None:
        """Append whole lines. Never raises for what the disk says: what it refused is counted in `lost`."""
        kept = [line.encode("utf-8", "backslashreplace") + b"\n" for line in lines]
        try:
            if self.lost:
                self._append(self._lost_line())
                self.lost = 0
            for data in kept:
                self._append(data)
                kept = kept[1:]
        except OSError:
            self.lost += len(kept)

    def close(self) -> None:
        """Idempotent; a later `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, data: bytes) -> None:
        if self._fd >= 0 and self._size + len(data) > self._limit:
            self.close()
            self._rotate()
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size
        written = os.write(self._fd, data)
        if written < len(data):  # a disk that became full: no half line stays
            os.ftruncate(self._fd, self._size)
            raise OSError("the disk is full")
        self._size += written

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def _lost_line(self) -> bytes:
        at = time.time()
        if self._as_note:
            return compose_note(f"{self.lost} lines could not be written here", at).encode() + b"\n"
        return compose_record({"at": at, "lost_lines": self.lost}).encode() + b"\n"
