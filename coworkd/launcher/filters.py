"""The seccomp programs that the supervisor has put, by their SHA-256: the last `launch.FILTER_LIMIT` of them, each in a memfd."""

from __future__ import annotations

import os

from coworkd.model.launch import FILTER_LIMIT
from coworkd.system import sha256
from coworkd.system.memfd import make_sealed


class Filters:
    """Owns the descriptors."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def put(self, name: str, program: bytes) -> bool:
        """False for a program that is not the one its hash names. Raises `OSError`."""
        if sha256.hex_digest(program) != name or len(program) % 8 or not program:
            return False
        known = self._known.pop(name, None)
        if known is None:
            known = make_sealed("seccomp", program)
        self._known[name] = known
        if len(self._known) > FILTER_LIMIT:
            os.close(self._known.pop(next(iter(self._known))))
        return True

    def open(self, name: str) -> int:
        """A description of its own, read from the start: bubblewrap reads from the current offset. Raises `OSError`."""
        return os.open(f"/proc/self/fd/{self._known.get(name, 'none')}", os.O_RDONLY | os.O_CLOEXEC)
