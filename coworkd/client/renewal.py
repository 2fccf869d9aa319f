"""When a link that was lost is made again, and when that is given up. Pure: the caller has the clock (monotonic) and dials.

Rules
- The first attempt is made at once; later ones after a pause that doubles up to `PAUSE_LAST_S`.
- `limit_s` after the loss there is no further attempt: the link is then broken, with what the last attempt said.
- A guest that is still coming up is not there yet.
- What no further attempt can mend (a wrong token, no common version) is given up at once.
- A link that is silent for `SILENCE_S` while somebody waits is asked (`ping`); silent for as long again it is taken for lost:
  a guest that stopped, or a connection of which one half is gone. Both times are counted from a look that found nothing, so
  that neither a host that slept nor a handle nobody read makes a link look dead.
"""

from __future__ import annotations

from coworkd.model.calls import HelloAnswer
from coworkd.model.errors import CoworkError, DeadlineExceeded, LimitExceeded, Unavailable

PAUSE_FIRST_S = 0.05
PAUSE_LAST_S = 2.0
DIAL_S = 10.0
SILENCE_S = 15.0


class Renewal:
    """The attempts of one client: begun with `lost`, ended with `renewed`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._deadline: float | None = None
        self._pause_s = 0.0

    def lost(self, now: float) -> bool:
        """The link was seen to be lost. Only the first time counts, and is true."""
        if self._deadline is not None:
            return False
        self._deadline = now + self._limit_s
        self._pause_s = 0.0
        return True

    def renewed(self) -> None:
        """There is a link again."""
        self._deadline = None

    def pause_s(self) -> float:
        """How long to wait before the next attempt."""
        pause_s, self._pause_s = self._pause_s, min(max(2 * self._pause_s, PAUSE_FIRST_S), PAUSE_LAST_S)
        return pause_s

    def over(self, now: float, error: CoworkError) -> bool:
        """Whether no further attempt is made after one that failed with `error`."""
        passing = isinstance(error, Unavailable | DeadlineExceeded | LimitExceeded)
        return not passing or self._deadline is None or now >= self._deadline


def refuse_starting(hello: HelloAnswer) -> None:
    """Raise `Unavailable` for a guest that is still coming up: what is said again there would be refused."""
    stage = hello.degraded.get("starting")
    if stage is not None:
        raise Unavailable(f"coworkd is there again, and coming up: {stage}", stage=stage, starting=True)


class Silence:
    """How long a link has said nothing while somebody looked."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._asked_at: float | None = None

    def heard(self) -> None:
        """Something came."""
        self._since = self._asked_at = None

    def looked(self, now: float) -> None:
        """Nothing was there."""
        if self._since is None:
            self._since = now

    def ask(self, now: float) -> bool:
        """Whether to send a `ping` now; true once."""
        if self._since is None or self._asked_at is not None or now - self._since < SILENCE_S:
            return False
        self._asked_at = now
        return True

    def dead(self, now: float) -> bool:
        """Whether the ping was not answered in time."""
        return self._asked_at is not None and now - self._asked_at >= SILENCE_S
