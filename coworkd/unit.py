"""coworkd as a unit of systemd: says that it listens, how far it is, that it lives, and that it ends.

Rules
- `READY=1` when the door is open: hosts are answered from then on, and the watchdog counts from then on. What is still coming up is in
  the status.
- The sign of life is sent by the loop that answers hosts, and only by it: one that hangs gives none, is killed and started again, and
  the launcher holds the commands meanwhile.
- A manager that does not take a message is not waited for.

Not here: what a unit may do (`systemd/coworkd.service`). Sources: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5) (WatchdogSec=).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from coworkd.system import sd_notify

_LOOKS = 4
"""In each span in which a sign of life is due: one that is late by a busy machine is none that is missing."""
_STATUS_S = 1.0
_log = logging.getLogger("coworkd.app")


class HealthState(Protocol):
    """How far coming up is."""

    @property
    def ready(self) -> bool: ...

    @property
    def doing(self) -> str: ...

    @property
    def degraded(self) -> dict[str, str]: ...


class Unit:
    """What the manager is told. `send` None: there is no manager, and nothing is sent."""

    def __init__(self, send: Callable[[str], object] | None, *, watchdog_s: float | None = None) -> None:
        self._send = send
        self._watchdog_s = watchdog_s
        self._status = ""
        self._listening = False

    @classmethod
    def of_environment(cls) -> Unit:
        """The one that started this process."""
        return cls(sd_notify.notify, watchdog_s=sd_notify.watchdog_s())

    def listening(self) -> None:
        """Hosts can come. Once."""
        if not self._listening:
            self._listening = True
            self._say("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    async def serve(self, health: HealthState) -> None:
        """Tell the manager that the loop turns, until cancelled."""
        if self._send is None:
            return
        period_s = _STATUS_S if self._watchdog_s is None else min(_STATUS_S, self._watchdog_s / _LOOKS)
        while True:
            words = [] if self._watchdog_s is None else ["WATCHDOG=1"]
            status = sd_notify.status(describe(health))
            if status != self._status:
                self._status = status
                words.append(status)
            if words:
                self._say("\n".join(words))
            await trio.sleep(period_s)

    def _say(self, text: str) -> None:
        if self._send is None:
            return
        try:
            self._send(text)
        except OSError as error:
            _log.warning("the service manager was not told %s: %s", text.partition("\n")[0], error.strerror)


def describe(health: HealthState) -> str:
    """One line of how it is."""
    if not health.ready:
        return f"coming up: {health.doing}"
    degraded = "; ".join(f"{part}: {reason}" for part, reason in health.degraded.items())
    return f"ready; degraded: {degraded}" if degraded else "ready"
