"""The guest's own way out: the events `network.status` and `reachability`.

Rules
- CONNECTED is a default route, or an upstream that needs none (a parent proxy, the host). It says nothing about what is behind.
- An event is told soon after the start and whenever something of it has changed, never again and again.
- The routes are looked at every few seconds through two small files; the helper with the netlink library runs at the start and
  when they have changed. It has a deadline, and its failure leaves the last facts and says so in `degraded`.
- `reachability` is told only where a probe is configured, and only tries what it names.

Nothing here changes the network.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import trio

from coworkd.model.network import NetworkFacts
from coworkd.model.ports import EventPort
from coworkd.services.network_look import look, read_routes
from coworkd.services.network_reach import reach

START_S = 1.0
"""Before the first look: a coworkd that was started for one short command should not pay for it."""
POLL_S = 3.0
LOOK_AGAIN_S = 60.0
"""After a helper that failed."""
PROBE_S = 30.0
PROBE_DEADLINE_S = 10.0
Status = Literal["CONNECTED", "NOT_CONNECTED"]
_log = logging.getLogger("coworkd.network")


class Network:
    """Owned by `app`; `serve` does all of it."""

    def __init__(
        self,
        *,
        events: EventPort,
        upstream: Callable[[], str],
        host_uri: str = "",
        probe: str = "",
        on_state: Callable[[str | None], None] = lambda _: None,
        read: Callable[[], str] = read_routes,
        ask: Callable[[], NetworkFacts] = look,
        try_target: Callable[..., Awaitable[str | None]] = reach,
        run_blocking: Callable[..., Awaitable[NetworkFacts]] = trio.to_thread.run_sync,
    ) -> None:
        """`upstream` is the default profile's; `on_state` is told why the helper fails, and None when it works again."""
        self._events = events
        self._upstream = upstream
        self._host_uri = host_uri
        self._probe = probe
        self._on_state = on_state
        self._read = read
        self._ask = ask
        self._try_target = try_target
        self._run_blocking = run_blocking
        self._facts: NetworkFacts | None = None
        self._told: dict[str, Any] | None = None
        self._reached: tuple[bool, str] | None = None

    @property
    def status(self) -> Status:
        """As far as is known now."""
        routed = self._facts is not None and bool(self._facts.routes)
        return "CONNECTED" if routed or self._upstream() != "direct" else "NOT_CONNECTED"

    def default_routes(self) -> tuple[str, ...]:
        """Each default route, for people. Before the first look it looks itself: for a worker thread. Raises `OSError`."""
        facts = self._facts or self._ask()
        return tuple(f"{one.device} via {one.gateway}" if one.gateway else one.device for one in facts.routes)

    @property
    def reachability(self) -> tuple[str, str | None] | None:
        """The probe's target, and why it was not reached the last time (None: it was). None where nothing was tried."""
        return None if self._reached is None else (self._probe, None if self._reached[0] else self._reached[1])

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch and tell. Started at once: coming up waits for no network. Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            if self._probe:
                nursery.start_soon(self._try_again_and_again)
            task_status.started()

    async def _watch(self) -> None:
        await trio.sleep(START_S)
        routes: str | None = None
        look_at = 0.0
        while True:
            now = trio.current_time()
            try:
                found: str | None = self._read()
            except OSError as error:  # no descriptor is left, say: what was known stays so until the next round
                _log.warning("the routes cannot be read: %s", error.strerror)
                found = routes
            if found != routes or now >= look_at:
                routes = found
                look_at = trio.current_time() + LOOK_AGAIN_S if not await self._look() else float("inf")
            self._tell()
            await trio.sleep(POLL_S)

    async def _look(self) -> bool:
        try:
            self._facts = await self._run_blocking(self._ask)
        except OSError as error:
            reason = str(error)
            _log.warning("the state of the network is not known: %s", reason)
            self._on_state(reason)
            return False
        self._on_state(None)
        return True

    def _tell(self) -> None:
        facts = self._facts or NetworkFacts()
        telling: dict[str, Any] = {
            "status": self.status,
            "upstream": shown_upstream(self._upstream()),
            "devices": [{"name": one.name, "addresses": list(one.addresses)} for one in facts.devices],
            "routes": [{"device": one.device, "gateway": one.gateway} for one in facts.routes],
        }
        if telling != self._told:
            self._told = telling
            self._events.publish("network.status", telling)

    async def _try_again_and_again(self) -> None:
        await trio.sleep(START_S)
        while True:
            began = trio.current_time()
            reason: str | None = f"no answer within {PROBE_DEADLINE_S:.0f} s"
            with trio.move_on_after(PROBE_DEADLINE_S):
                reason = await self._try_target(self._probe, upstream=self._upstream(), host_uri=self._host_uri)
            found = (reason is None, reason or "")
            if found != self._reached:
                self._reached = found
                took_s = trio.current_time() - began
                fields = {"target": self._probe, "reachable": found[0], "reason": found[1], "took_s": took_s}
                self._events.publish("reachability", fields)
            await trio.sleep_until(began + PROBE_S)


def shown_upstream(upstream: str) -> str:
    """An upstream without the credentials that may stand in its URL."""
    scheme, colon, rest = upstream.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}" if colon else upstream
