"""Bridges: socket-to-socket forwarders, from the configuration and over links.

Rules
- Names are unique. Opening what is open with the very same ends gives it back; other ends under its name are refused.
- One over a link listens when the call is answered, or is not there; one of the configuration is tried until it does, and what keeps it
  from listening is told in `degraded`.
- A bridge that listens inside a session lets that session past its egress policy. The configuration may have some; over a link they are
  refused unless the configuration allows it (`allow_bridges`).
- Opened and closed are recorded, the first before it listens; bridges of links end with coworkd, not with the link.
- At most `BRIDGES`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import trio

from coworkd.model import calls
from coworkd.model.bridge import BridgeOrigin, BridgeSpec, SessionEnd, parse_bridge
from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    InvalidState,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.model.ports import AuditPort, LinkPort
from coworkd.services.bridges_ends import Ends, Listener
from coworkd.services.bridges_live import CONNECTIONS, Bridge
from coworkd.services.bridges_relay import Pipes

BRIDGES = 64
_log = logging.getLogger("coworkd.bridge")


class Bridges:
    """All bridges of this guest. `serve` owns their tasks."""

    def __init__(
        self,
        *,
        ends: Ends,
        audit: AuditPort,
        on_degraded: Callable[[str, str | None], None],
        allow_bridges: bool,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_degraded` is told a part (`bridge NAME`) and why it does not work, or None."""
        self._ends = ends
        self._audit = audit
        self._on_degraded = on_degraded
        self._allow_bridges = allow_bridges
        self._connections = connections
        self._clock = clock
        self._bridges: dict[str, Bridge] = {}
        self._pipes = Pipes()
        self._turn = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def serve(
        self, specs: Iterable[BridgeSpec] = (), *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Open the configuration's, own every bridge's task. Never returns. Raises `DiskFailed`."""
        try:
            async with trio.open_nursery() as self._nursery:
                for spec in specs:
                    await self._record("bridge.open", spec, "config")
                    self._start(spec, "config", None)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._pipes.close()

    async def end_all(self) -> None:
        """coworkd stops: end every bridge, and record it. A record that cannot be written is logged."""
        async with self._turn:
            for bridge in list(self._bridges.values()):
                bridge.close()
                await bridge.closed.wait()
                await self._record_quietly(bridge)
            self._bridges.clear()

    def look(self) -> None:
        """A session was opened, closed or opened anew: bridges look at once, not at their next look."""
        for bridge in self._bridges.values():
            bridge.look()

    # -- verbs --------------------------------------------------------------------------------------------------

    async def open(self, params: calls.BridgeOpen, link: LinkPort) -> calls.BridgeOpened:
        """Raises `InvalidParams`, `PolicyDenied`, `AlreadyExists`, `LimitExceeded`, `NotFound` (the session), `InvalidState` (it cannot
        listen), `DiskFailed`.
        """
        spec = parse_bridge({"name": params.name, "listen": params.listen, "connect": params.connect})
        self._refuse_way_out(spec)
        async with self._turn:
            known = self._bridges.get(spec.name)
            if known is not None and known.spec == spec:
                return calls.BridgeOpened(bridge=known.info)
            self._refuse(spec, known)
            await self._record("bridge.open", spec, "host", link=link.name)
            try:
                listener = await self._listen(spec)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    reason = error.message if isinstance(error, CoworkError) else type(error).__name__
                    await self._record("bridge.close", spec, "host", link=link.name, reason=reason)
                raise
            return calls.BridgeOpened(bridge=self._start(spec, "host", listener).info)

    async def list(self) -> calls.BridgeList:
        """By name."""
        return calls.BridgeList(bridges=tuple(self._bridges[name].info for name in sorted(self._bridges)))

    async def close(self, params: calls.BridgeClose, link: LinkPort) -> calls.Empty:
        """End it and its connections; one of the configuration is back when coworkd starts again. Raises `NotFound`, `DiskFailed`."""
        async with self._turn:
            bridge = self._bridges.get(params.name)
            if bridge is None:
                raise NotFound(f"there is no bridge {params.name[:64]!r}; bridge.list names all", name=params.name[:64])
            # Shielded: a caller that goes meanwhile would leave its name to a bridge that is no more.
            with trio.CancelScope(shield=True):
                bridge.close()
                await bridge.closed.wait()
                self._bridges.pop(params.name, None)
                await self._record_end(bridge, "asked for", link=link.name)
        return calls.Empty()

    # -- inside -------------------------------------------------------------------------------------------------

    def _refuse_way_out(self, spec: BridgeSpec) -> None:
        if isinstance(spec.listen, SessionEnd) and not self._allow_bridges:
            raise PolicyDenied(
                f"bridge {spec.name} would let session {spec.listen.session} past its egress policy; an admin can put it into "
                "coworkd.toml ([[bridges]]), or set allow_bridges there",
                key="listen",
            )

    def _refuse(self, spec: BridgeSpec, known: Bridge | None) -> None:
        if known is not None:
            raise AlreadyExists(
                f"bridge {spec.name} leads from {known.spec.listen} to {known.spec.connect}; close it first",
                name=spec.name,
            )
        if len(self._bridges) >= BRIDGES:
            raise LimitExceeded(f"there are {BRIDGES} bridges; close some", limit=BRIDGES)
        if self._nursery is None:
            raise Unavailable("coworkd is starting or stopping; open the bridge again later")

    async def _listen(self, spec: BridgeSpec) -> Listener:
        try:
            return await self._ends.listen(spec.listen)
        except OSError as error:
            raise InvalidState(
                f"{spec.listen} cannot be listened on: {error.strerror or error}", stage="listen", errno=error.errno
            ) from error

    def _start(self, spec: BridgeSpec, origin: BridgeOrigin, listener: Listener | None) -> Bridge:
        nursery = self._nursery
        if nursery is None:
            if listener is not None:
                listener.close()
            raise Unavailable("coworkd is stopping")
        bridge = Bridge(
            spec,
            origin=origin,
            ends=self._ends,
            pipes=self._pipes,
            on_state=lambda reason: self._on_degraded(f"bridge {spec.name}", reason),
            connections=self._connections,
            clock=self._clock,
        )
        self._bridges[spec.name] = bridge
        if listener is not None:
            bridge.state = "listening"
        nursery.start_soon(self._run, bridge, listener)
        return bridge

    async def _run(self, bridge: Bridge, listener: Listener | None) -> None:
        try:
            await bridge.run(listener)
        finally:
            if not bridge.closing:
                with trio.CancelScope(shield=True):
                    await self._record_quietly(bridge)

    async def _record_quietly(self, bridge: Bridge) -> None:
        try:
            await self._record_end(bridge, "coworkd stops")
        except CoworkError as error:
            _log.error("the end of bridge %s was not recorded: %s", bridge.spec.name, error.message)

    async def _record_end(self, bridge: Bridge, reason: str, *, link: str | None = None) -> None:
        await self._record(
            "bridge.close",
            bridge.spec,
            bridge.origin,
            link=link,
            reason=reason,
            connections=bridge.connections_total,
            failed=bridge.failed_total,
            sent_bytes=bridge.counts.sent,
            received_bytes=bridge.counts.received,
            took_s=self._clock() - bridge.opened_at,
        )

    async def _record(self, kind: str, spec: BridgeSpec, origin: BridgeOrigin, **more: object) -> None:
        about = {"name": spec.name, "listen": str(spec.listen), "connect": str(spec.connect), "origin": origin}
        await self._audit.record(kind, {**about, **more})
