"""What a keeper that starts tells whoever started it, on a pipe: JSON lines, until it is started or has failed.

    {"progress": ["checking rootfs.img", 1048576, 734003200]}     as often as is good for a person
    {"started": 4242}                                              the guest's kernel runs; the pipe is closed
    {"trouble": {"code", "message", "remedy", "details"}}          it does not; the pipe is closed

A pipe that ends without either is a keeper that died. The keeper never waits for its reader: progress that does not fit is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from host_stub.bundle_files import Progress
from host_stub.keeper_words import encode_trouble
from host_stub.words import Trouble

PROGRESS_S = 0.1
LINE_LIMIT_BYTES = 1 << 20


class Reporter:
    """The writing end. Without a descriptor it tells nobody. Thread-safe enough for one writer at a time."""

    def __init__(self, fd: int | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._monotonic = monotonic
        self._told_at = -PROGRESS_S
        self._told = ""
        if fd is not None:
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell how far something is, unless that was told a moment ago. A `Progress`."""
        now = self._monotonic()
        if what == self._told and done < total and now - self._told_at < PROGRESS_S:
            return
        self._told, self._told_at = what, now
        self._write({"progress": [what, done, total]})

    def started(self, pid: int) -> None:
        self._finish({"started": pid})

    def failed(self, trouble: Trouble) -> None:
        self._finish({"trouble": encode_trouble(trouble)})

    def _finish(self, message: dict[str, Any]) -> None:
        if self._fd is not None:
            os.set_blocking(self._fd, True)
            self._write(message)
            os.close(self._fd)
            self._fd = None

    def _write(self, message: dict[str, Any]) -> None:
        if self._fd is not None:
            # A reader that is gone, or has no room for progress now, does not hold a machine up.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._fd, json.dumps(message).encode() + b"\n")


def read_report(fd: int, progress: Progress) -> int | None:
    """Follow a report to its end; the pid of the started machine's process, or None where the keeper died without a word.

    Raises the `Trouble` it tells. The descriptor stays the caller's.
    """
    with os.fdopen(os.dup(fd), "rb") as lines:
        while line := lines.readline(LINE_LIMIT_BYTES):
            message = _parse(line)
            if "trouble" in message:
                told = message["trouble"]
                raise Trouble(told["code"], told["message"], remedy=told["remedy"], details=told.get("details"))
            if "started" in message:
                return int(message["started"])
            if "progress" in message:
                progress(*message["progress"])
    return None


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}  # cut off by the death of its writer
    return message if isinstance(message, dict) else {}
