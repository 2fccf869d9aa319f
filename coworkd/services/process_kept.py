"""Ended processes that are still kept: by age, by number, by bytes, the oldest going first.

Rules
- The newest is kept even where it alone is over the bound of bytes: somebody is about to ask for it.
- Those that somebody reads stay over that bound, too, as long as all together are within another one (`awaited_bytes`): a coworkd that is
  killed can leave to the next one only what is kept.
- Bytes are those of the moment of the end.

It decides who has to go; whoever asks lets them go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from coworkd.config import FinishedConfig


class KeptProcesses:
    """Ended processes in the order of their ends."""

    def __init__(self, bounds: FinishedConfig, *, awaited_bytes: int) -> None:
        self._bounds = bounds
        self._awaited_bytes = awaited_bytes
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

    def surplus(self, now_s: float, awaited: Callable[[str], bool]) -> list[str]:
        """Who has to go, oldest first; `awaited` is asked of those that are read."""
        count, kept_bytes, all_bytes = len(self._ended), self._bytes, self._bytes
        newest = next(reversed(self._ended), None)
        gone = []
        for process, (ended_s, size) in self._ended.items():
            old, many = now_s - ended_s >= self._bounds.keep_s, count > max(1, self._bounds.keep_count)
            if not old and not many and (kept_bytes <= self._bounds.keep_bytes or process == newest):
                break
            kept_bytes -= size
            if old or many or all_bytes > self._awaited_bytes or not awaited(process):
                gone.append(process)
                count -= 1
                all_bytes -= size
        return gone
