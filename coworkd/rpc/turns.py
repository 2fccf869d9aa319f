"""Whose turn it is among the sources of one link.

Rules
- Only those stand in a line that may have something: a source does from when it is attached or woken until it had nothing when it was
  asked. Of many that are attached few have something, and the others cost no turn.
- One that had nothing before goes first, for a frame's worth. What gave that much has more, and takes turns of `TURN_BYTES` with the
  others that do: what one gives at a time is for one task of the peer, so of many a frame each would wake as many.
- Those who go first have half of a send at most, of what its answers leave, while others wait: however many say a little, nobody
  stands still.

It asks nobody itself, and knows no transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from coworkd.model.ports import Frames

FRAME_BYTES = 64 * 1024
TURN_BYTES = 4 * FRAME_BYTES
GATHER_BYTES = 512 * 1024
"""So much is sent at a time."""


class Turns:
    """The sources that are attached, and the two lines in which some of them stand."""

    def __init__(self) -> None:
        self._stands: dict[Frames, bool] = {}
        """Source → whether it stands in a line."""
        self._first: deque[Frames] = deque()
        self._others: deque[Frames] = deque()

    def __iter__(self) -> Iterator[Frames]:
        return iter(tuple(self._stands))

    def attach(self, source: Frames) -> None:
        """It may have something. Idempotent."""
        self._stands.setdefault(source, False)
        self.wake(source)

    def detach(self, source: Frames) -> bool:
        """It has no turn any more; false where it was not attached."""
        stood = self._stands.pop(source, None)
        if stood:
            (self._first if source in self._first else self._others).remove(source)
        return stood is not None

    def wake(self, source: Frames) -> None:
        """It may have something again; one that is not attached is passed over."""
        if self._stands.get(source) is False:
            self._stands[source] = True
            self._first.append(source)

    def next(self, left_bytes: int, *, first_half: bool) -> tuple[Frames, int] | None:
        """Who is to be asked, and for how many bytes, of `left_bytes` at most; None where nobody stands. It stands nowhere then, until
        `wake` or `again`. `first_half` says whether half of what the send has room for is still free.
        """
        if self._first and (first_half or not self._others):
            source, limit_bytes = self._first.popleft(), FRAME_BYTES
        elif self._others:
            source, limit_bytes = self._others.popleft(), TURN_BYTES
        else:
            return None
        self._stands[source] = False
        return source, min(limit_bytes, left_bytes)

    def again(self, source: Frames) -> None:
        """It has given all that it was asked for, and may have more."""
        if self._stands.get(source) is False:
            self._stands[source] = True
            self._others.append(source)
