"""Ended processes that are still kept: by age, by number, by bytes, the oldest going first.

Rules
- The newest is kept even where it alone is over the bound of bytes: somebody is about to ask for it.
- Bytes are those of the moment of the end.

It decides who has to go; whoever asks lets them go.
"""

from __future__ import annotations

from collections import OrderedDict

from coworkd.config import FinishedConfig


class KeptProcesses:
    """Ended processes in the order of their ends."""

    def __init__(self, bounds: FinishedConfig) -> None:
        self._bounds = bounds
        self._ended: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._bytes = 0

    def add(self, process: str, *, now_s: float, kept_bytes: int) -> None:
        """`process` has ended now (monotonic seconds) and holds that much."""
        self._ended[process] = (now_s, kept_bytes)
        self._bytes += kept_bytes

    def discard(self, process: str) -> None:
        """It is gone; unknown ones are passed over."""
        _, kept_bytes = self._ended.pop(process, (0.0, 0))
        self._bytes -= kept_bytes

    def __len__(self) -> int:
        return len(self._ended)

    def surplus(self, now_s: float) -> list[str]:
        """Who has to go, oldest first."""
        count, kept_bytes = len(self._ended), self._bytes
        gone = []
        for process, (ended_s, size) in self._ended.items():
            crowded = count > 1 and (count > self._bounds.keep_count or kept_bytes > self._bounds.keep_bytes)
            if not crowded and now_s - ended_s < self._bounds.keep_s:
                break
            gone.append(process)
            count -= 1
            kept_bytes -= size
        return gone
