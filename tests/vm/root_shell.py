"""A root shell in a guest, over a serial port: for tests only, and only where the test's kernel command line asked systemd for one.

Each script is sent as one line in base64, and its output and exit status come back as one, so that nothing on the line (echo, prompts,
the shell's own words) is taken for either.
"""

from __future__ import annotations

import base64
import re
import socket
import time
from pathlib import Path

import msgspec

_LINE_LIMIT = 3800
"""A terminal takes lines of 4,095 bytes."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    output: str


class RootShell:
    """Blocking; one script at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._number = 0
        self._buffer = b""

    def run(self, script: str, *, timeout_s: float = 240) -> Said:
        """Run it by sh as root, with its output and errors together. Raises TimeoutError."""
        self._number += 1
        packed = base64.b64encode(script.encode()).decode()
        line = f'echo {packed} | base64 -d >/run/s; sh /run/s >/run/o 2>&1 </dev/null; echo "@{self._number} $? $(base64 -w0 /run/o)@"\n'
        assert len(line) < _LINE_LIMIT, "the script is too long for one line"
        self._socket.sendall(line.encode())
        found = self._read_until(rb"@%d (\d+) ([A-Za-z0-9+/=]*)@" % self._number, time.monotonic() + timeout_s)
        return Said(status=int(found[1]), output=base64.b64decode(found[2]).decode("utf-8", "replace"))

    def check(self, script: str, *, timeout_s: float = 240) -> str:
        """The output of a script that has to succeed."""
        said = self.run(script, timeout_s=timeout_s)
        assert said.status == 0, f"{script!r} ended with {said.status}: {said.output}"
        return said.output

    def close(self) -> None:
        self._socket.close()

    def _read_until(self, pattern: bytes, deadline: float) -> re.Match[bytes]:
        while (found := re.search(pattern, self._buffer)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the root shell did not answer: {self._buffer[-500:]!r}")
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise TimeoutError("the root shell is gone")
            self._buffer += data
        self._buffer = self._buffer[found.end() :]
        return found
