"""The door: every endpoint of one coworkd, open before the rest is there.

Rules
- Until `enter` a link may say `hello` and ask what needs nothing that is still coming up; `hello` says in `degraded.starting` what that
  is. Any other call is UNAVAILABLE with the stage in its words, never kept waiting and never answered wrongly.
- Links that came early stay when the rest is there; they hear the event `ready`.
- An endpoint that cannot be listened on (no vsock device yet, a port that is taken) is `degraded`, and tried again every `RETRY_S`: a
  device that is late is adopted.
- What happened to links before there was an audit log is recorded when there is one, the oldest `KEPT_RECORDS` of it.

Not here: what is coming up, and in which order (`bring_up`, `app`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio

from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.ports import AuditPort
from coworkd.rpc.methods import Method, MethodTable
from coworkd.rpc.server import Server
from coworkd.wire.endpoint import ServedEndpoint, parse_served_endpoint

RETRY_S = 1.0
KEPT_RECORDS = 256
_log = logging.getLogger("coworkd.app")

Degrade = Callable[[str, str | None], None]


class Door:
    """Implements nothing: `app` opens it, hands over, and shuts it."""

    def __init__(self, endpoints: tuple[str, ...], *, doing: Callable[[], str], degrade: Degrade) -> None:
        """`doing` says which stage coming up is at."""
        self._endpoints = endpoints
        self._doing = doing
        self._degrade = degrade
        self.audit = EarlyAudit()
        self.server = Server(EarlyTable((), doing), self.audit)
        self.is_open = False

    def put_methods(self, early: tuple[Method, ...]) -> None:
        """Say which methods are there at once; before `open`."""
        self.server.methods = EarlyTable(early, self._doing)

    async def open(self, nursery: trio.Nursery, *, patient: bool) -> None:
        """Listen. `nursery` owns the links from now on. Raises `AlreadyExists`, `Unavailable` unless `patient`."""
        self.is_open = True
        await nursery.start(self.server.run)
        for uri in self._endpoints:
            if patient:
                await nursery.start(self._serve, uri)
            else:
                await nursery.start(self.server.serve, parse_served_endpoint(uri))

    async def enter(self, methods: MethodTable, audit: AuditPort) -> None:
        """The rest is there: every method is served, and what waited for the audit log goes into it."""
        self.server.methods = methods
        await self.audit.hand_over(audit)

    async def shut(self, grace_s: float) -> None:
        """Tell every link, and end them."""
        if self.is_open:
            await self.server.shut_down(grace_s)

    async def _serve(self, uri: str, *, task_status: trio.TaskStatus[None]) -> None:
        endpoint = parse_served_endpoint(uri)
        said = f"endpoint {uri}"
        first = True
        while True:
            try:
                await self._serve_once(endpoint, said, task_status if first else trio.TASK_STATUS_IGNORED)
            except CoworkError as error:
                if first:
                    _log.warning("%s; tried again every %g s", error.message, RETRY_S)
                    task_status.started()
                self._degrade(said, error.message)
                first = False
                await trio.sleep(RETRY_S)
            else:
                return

    async def _serve_once(self, endpoint: ServedEndpoint, said: str, task_status: trio.TaskStatus[None]) -> None:
        await self.server.serve(endpoint, task_status=_Listens(lambda: self._degrade(said, None), task_status))


class _Listens(trio.TaskStatus[None]):
    """Tells once that an endpoint is listened on, and then whoever started the task."""

    def __init__(self, listens: Callable[[], None], inner: trio.TaskStatus[None]) -> None:
        self._listens = listens
        self._inner = inner

    def started(self, value: None = None) -> None:
        self._listens()
        self._inner.started()


class EarlyTable(MethodTable):
    """The methods of a coworkd that is coming up."""

    def __init__(self, methods: tuple[Method, ...], doing: Callable[[], str]) -> None:
        super().__init__(methods)
        self._doing = doing

    def find(self, name: str) -> Method:
        """Return the method, or raise `Unavailable`: whether there will be one of that name cannot be said yet."""
        if name in self._methods:
            return super().find(name)
        doing = self._doing()
        raise Unavailable(
            f"coming up: {doing}; ask again when the event `ready` has come (events.subscribe), or in a moment",
            stage=doing,
            starting=True,
        )


class EarlyAudit:
    """An `AuditPort` for the server: keeps what comes before there is an audit log."""

    def __init__(self) -> None:
        self._audit: AuditPort | None = None
        self._kept: list[tuple[str, Mapping[str, Any]]] = []

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        if self._audit is not None:
            await self._audit.record(kind, fields)
        elif len(self._kept) < KEPT_RECORDS:
            self._kept.append((kind, fields))
        else:
            _log.warning("not recorded, there is no audit log yet: %s %s", kind, dict(fields))

    def take_kept(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What was kept, the caller's to see written: this coworkd ends before it has a log."""
        kept, self._kept = self._kept, []
        return kept

    async def hand_over(self, audit: AuditPort) -> None:
        """Write down what was kept. A log that takes none is told by the log of the day."""
        self._audit = audit
        kept, self._kept = self._kept, []
        for kind, fields in kept:
            try:
                await audit.record(kind, fields)
            except CoworkError as error:
                _log.error("%s could not be audited: %s", kind, error.message)
