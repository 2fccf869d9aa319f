"""Output put together: what `communicate` gives. Pure."""

from __future__ import annotations

from typing import NamedTuple

from coworkd.client.inbox import Output
from coworkd.model.errors import LimitExceeded
from coworkd.model.process import ExitRecord

COLLECT_LIMIT_BYTES = 64 * 1024 * 1024


class Collected(NamedTuple):
    """Stream → all its bytes, and how the command ended."""

    streams: dict[str, bytes]
    exit: ExitRecord


class Collector:
    """Puts pieces together, at most `limit_bytes` of all streams."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes
        self._streams: dict[str, bytearray] = {}

    def add(self, piece: Output) -> None:
        """Take one piece. Raises `LimitExceeded`."""
        self._left_bytes -= len(piece.data)
        if self._left_bytes < 0:
            raise LimitExceeded(
                f"the command said more than the {self._limit_bytes} bytes that are collected; iterate over the process, or "
                "raise limit_bytes",
                stage="too_big",
                limit=self._limit_bytes,
            )
        self._streams.setdefault(piece.stream, bytearray()).extend(piece.data)

    def streams(self) -> dict[str, bytes]:
        """What there is so far."""
        return {name: bytes(data) for name, data in self._streams.items()}
