"""What bubblewrap tells of itself: `--json-status-fd`, read as it comes.

Lines are JSON objects. `child-pid` comes once the sandbox's init exists, `exit-code` only if the command's exec succeeded; the
pipe's end without it means that the command never ran. Source: bwrap(1).
"""

from __future__ import annotations

import os

import msgspec

from coworkd.model.errors import UNDECODABLE

_LIMIT_BYTES = 64 * 1024


class StatusReader:
    """The read end of one status pipe; `close` it once `ended` or no longer wanted."""

    def __init__(self, fd: int) -> None:
        self.fd: int | None = fd
        self.init_pid: int | None = None
        self.exit_code: int | None = None
        self.ended = False
        self._pending = b""

    def drain(self) -> None:
        """Take all that is there: for a sandbox that has gone."""
        while not self.ended and self.read():
            pass

    def read(self) -> bool:
        """Take what is there, False if nothing is; `ended` at the end, or at anything that is not bubblewrap's."""
        if self.fd is None:
            return False
        try:
            data = os.read(self.fd, _LIMIT_BYTES)
        except BlockingIOError:
            return False
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._take(line)
        self.ended = not data or len(self._pending) > _LIMIT_BYTES
        return True

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _take(self, line: bytes) -> None:
        try:
            record = msgspec.json.decode(line)
        except UNDECODABLE:
            return
        if isinstance(record, dict):
            self.init_pid = _integer(record.get("child-pid"), self.init_pid)
            self.exit_code = _integer(record.get("exit-code"), self.exit_code)


def _integer(value: object, otherwise: int | None) -> int | None:
    return value if isinstance(value, int) else otherwise
