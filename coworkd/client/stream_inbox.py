"""What has come on one stream and was not taken yet: offsets checked, bounded by the window, without I/O.

Rules
- The guest sends at most the window beyond what was acknowledged, so at most that much waits here, whoever does not read; other
  streams of the link go on.
- `due` says what to acknowledge: half a window at a time, so that the guest need not stop while somebody reads.
- A frame that does not follow the one before, or goes past the window, is a fault of the guest's: `ValueError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from coworkd.model.errors import CoworkError, InvalidState
from coworkd.wire.fault import parse_fault

WINDOW_BYTES = 512 * 1024


class StreamInbox:
    """The receiving end of one stream."""

    def __init__(self, stream: str, window: int = WINDOW_BYTES) -> None:
        self.stream = stream
        self.wanted = 0
        """The offset of the next byte that comes."""
        self.taken = 0
        """The offset of the next byte to be taken."""
        self._window = window
        self._acknowledged = 0
        self._queue: deque[bytes] = deque()
        self._eof = False
        self._error: CoworkError | None = None

    def feed(self, params: Mapping[str, Any]) -> None:
        """Take one `stream.data` in. Raises `KeyError`, `TypeError`, `ValueError` for what cannot be one."""
        offset, data = params["offset"], params["data"]
        if self._eof or offset != self.wanted or not isinstance(data, bytes):
            raise ValueError(f"stream {self.stream} is at {self.wanted}, not at {offset!r}")
        if self.wanted + len(data) > self._acknowledged + self._window:
            raise ValueError(f"stream {self.stream} goes past its window of {self._window} bytes")
        if data:
            self._queue.append(data)
            self.wanted += len(data)
        self._eof = params.get("eof") is True
        error = params.get("error")
        if error is not None:
            self._error = parse_fault(error)

    def close(self) -> None:
        """Nobody wants more of it: what waits is dropped, and who still takes is told."""
        self._queue.clear()
        self._eof = True
        self._error = InvalidState(f"stream {self.stream} was closed here", stream=self.stream)

    def lose(self, error: CoworkError) -> None:
        """Its link is gone, and nothing comes any more: what waits can be taken, then `take` raises `error`."""
        if not self._eof:
            self._eof = True
            self._error = error

    @property
    def waiting(self) -> bool:
        """`take` has something, the end included."""
        return bool(self._queue) or self._eof

    def take(self, limit_bytes: int | None = None) -> bytes | None:
        """The next bytes; empty at the end, always; None when none wait. Raises the error of a stream that was lost."""
        if not self._queue:
            if self._error is not None:
                raise self._error
            return b"" if self._eof else None
        data = self._queue.popleft()
        if limit_bytes is not None and len(data) > limit_bytes:
            self._queue.appendleft(data[limit_bytes:])
            data = data[:limit_bytes]
        self.taken += len(data)
        return data

    def due(self) -> int | None:
        """The offset to acknowledge now, or None; counted as acknowledged from here on."""
        if self._eof or self.taken - self._acknowledged < max(1, self._window // 2):
            return None
        self._acknowledged = self.taken
        return self.taken
