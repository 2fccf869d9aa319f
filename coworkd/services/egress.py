"""The way out of sessions: which policy holds for whom, handed to coworkd-egress with the sessions' listeners; and what it tells.

Rules
- What a session may reach is composed by whoever serves it; only the time-limited allowances are added here. They end with their time,
  with the session's closing, and with this coworkd.
- coworkd-egress may come and go: every session that is served is handed over again, on the same listeners. While it is away a change
  holds all the same: nothing gets out until it has heard of it. One that served a session before closes what is forbidden by then.
- A session that cannot be handed over reaches nothing; that is told (`on_state`), and tried again every `MEND_S`.
- One thing at a time is said about sessions (`_turn`): what was composed first is told first, and descriptors are sent while they are
  open. Whoever has its turn is not cancelled.
- Where a session's TLS is inspected, the certificate of the one who does it is trusted before the session is served.
- Nothing here parses what a session sends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import trio
from msgspec import Struct, structs

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.errors import CoworkError, InvalidParams, LimitExceeded, PolicyDenied, Unavailable
from coworkd.model.policy import LimitsRequest, SeccompProgram
from coworkd.model.ports import AuditReader, EventPort, SessionDirectory, SessionPolicyPort
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.patterns import refuse_domain
from coworkd.services.egress_link import Connect, EgressLink
from coworkd.services.egress_records import EgressRecords

ALLOWANCE_LIMIT = 64
"""Allowances a session has at once."""
LOG_LIMIT = 1000
MEND_S = 5.0
_STRANDED_TOLD = 3
_BEGIN_TIMEOUT_S = 5.0
_RECORD_S = 5.0
_log = logging.getLogger("coworkd.egress")


class InspectionTrust(Protocol):
    """Where the certificate of the inspection becomes trusted, and what a host has had trusted."""

    @property
    def installed_pem(self) -> str: ...

    async def set_inspection_ca(self, pem: bytes | None) -> None: ...


class _Served(Struct):
    """One session that is served; owns its listeners."""

    base: words.SessionEgress
    listeners: tuple[int, ...]
    allowances: tuple[words.Allowance, ...] = ()
    pid: int | None = None
    """The coworkd-egress that has them."""
    close_forbidden: bool = False
    """It has still to close what is forbidden."""

    def effective(self, now: float) -> words.SessionEgress:
        kept = tuple(allowance for allowance in self.allowances if allowance.until > now)
        return structs.replace(self.base, allowances=(*self.base.allowances, *kept))


class Egress:
    """Implements `ports.EgressPort`, and what `egress.*` calls need. `attach` before `serve`."""

    def __init__(
        self,
        connect: Connect,
        *,
        version: str,
        host_uri: str,
        filter_program: Callable[[], SeccompProgram],
        policies: SessionPolicyPort,
        trust: InspectionTrust,
        audit: AuditReader,
        events: EventPort,
        on_state: Callable[[str | None], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._version = version
        self._host_uri = host_uri
        self._filter_program = filter_program
        self._policies = policies
        self._trust = trust
        self._audit = audit
        self._clock = clock
        self._served: dict[str, _Served] = {}
        self._turn = trio.Lock()
        self._kept: tuple[str, ...] = ()
        """What coworkd-egress served when it began."""
        self._is_settled = False
        """Whether all sessions that go on are served again."""
        self._inspector: int | None = None
        """The pid of the coworkd-egress whose CA is trusted."""
        self._sessions: SessionDirectory | None = None
        self._on_state = on_state
        self._link_state: str | None = None
        self._stranded: dict[str, str] = {}
        """Session → why it could not be handed over."""
        self._records = EgressRecords(audit=audit, events=events, clock=clock)
        self._link = EgressLink(
            connect,
            begin=self._compose_begin,
            on_pid=self._records.begin,
            on_begun=self._begun,
            on_told=self._records.told,
            on_state=self._take_link_state,
        )

    def attach(self, sessions: SessionDirectory) -> None:
        """Say who opens sessions; before `serve`."""
        self._sessions = sessions

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the conversation and the records. Started once coworkd-egress serves, or after a while without it. Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._records.serve, self._link.recorded)
            nursery.start_soon(self._link.serve)
            nursery.start_soon(self._mend)
            with trio.move_on_after(_BEGIN_TIMEOUT_S):
                await self._link.started.wait()
            task_status.started()

    @property
    def pid(self) -> int | None:
        """coworkd-egress's; None while it is away."""
        return self._link.pid

    @property
    def degraded(self) -> tuple[str, ...]:
        """What of coworkd-egress's walls the kernel did not give."""
        return self._link.degraded

    async def stop_others(self) -> None:
        """Have coworkd-egress stop what it kept of an earlier coworkd, and nobody has taken over; now and whenever it begins."""
        self._is_settled = True
        for session in self._kept:
            if session not in self._served:
                await self.stop(session)

    async def quit(self) -> None:
        """End coworkd-egress, have its last words recorded, and let go of every listener."""
        with contextlib.suppress(CoworkError):
            await self._link.quit()
        with trio.move_on_after(_RECORD_S) as waited:
            await self._records.wait_written()
        if waited.cancelled_caught:
            _log.error("%d events of coworkd-egress are not recorded", self._records.unrecorded)
        self.close()

    def close(self) -> None:
        """Let go of every listener; coworkd-egress and the launcher have their own."""
        for served in self._served.values():
            _close(served.listeners)
        self._served.clear()

    async def trust_changed(self) -> None:
        """A host has installed or removed certificates: whoever inspects verifies servers by them from now on. Never fails."""
        async with self._in_turn():
            if self._inspector is None or self._link.pid != self._inspector:
                return  # told with the first session whose TLS is inspected
            try:
                await self._link.ask(words.TrustRoots(id=0, pem=self._trust.installed_pem))
            except CoworkError as error:
                self._inspector = None
                _log.warning("coworkd-egress was not told which certificates are trusted now: %s", error.message)

    # -- ports.EgressPort ---------------------------------------------------------------------------------------

    async def serve_session(self, session: str, egress: words.SessionEgress, listeners: tuple[int, ...], /) -> None:
        """See `ports.EgressPort.serve_session`."""
        async with self._in_turn():
            known = self._served.get(session)
            if known is None:
                self._served[session] = _Served(base=egress, listeners=listeners)
                self._records.expect(session)
            else:
                _close(known.listeners)
                known.base, known.listeners, known.pid = egress, listeners, None
            await self._hand_over(session)

    async def change(self, session: str, egress: words.SessionEgress, /, *, close_forbidden: bool) -> int:
        """See `ports.EgressPort.change`."""
        async with self._in_turn():
            served = self._served.get(session)
            if served is None:
                return 0
            before = served.base
            served.base = egress
            try:
                return await self._tell(session, served, close_forbidden=close_forbidden)
            except CoworkError:
                served.base = before
                raise

    async def stop(self, session: str, /) -> None:
        """See `ports.EgressPort.stop`."""
        async with self._in_turn():
            served = self._served.pop(session, None)
            if served is not None:
                _close(served.listeners)
            self._note(session, None)
            with contextlib.suppress(Unavailable):  # stopped when it begins, if it has it still
                await self._link.ask(words.Stop(id=0, session=session))
            self._records.forget(session)

    # -- egress.* -----------------------------------------------------------------------------------------------

    async def check(self, params: calls.EgressCheck) -> calls.EgressChecked:
        """Decide about a host without reaching for it. Raises `NotFound` for the session or profile, `InvalidParams` for the port."""
        if not 0 < params.port < 65536:
            raise InvalidParams(f"{params.port} is no port: 1 to 65535", key="port")
        if params.session is not None:
            egress = (await self._find(params.session)).effective(self._clock())
        else:
            policy = await self._policies.effective(params.profile, LimitsRequest())
            egress = self._policies.compose_egress(policy, None)[0]
        verdict = Rules(egress).decide(params.host, params.port, now=self._clock())
        return calls.EgressChecked(
            allowed=verdict.allowed,
            host=verdict.host,
            port=verdict.port,
            rule=verdict.rule,
            reason=verdict.reason,
        )

    async def allow(self, params: calls.EgressAllow) -> calls.EgressAllowed:
        """Allow a pattern for a while. Raises `PolicyDenied` past the profile's `allow_max_s`, `InvalidParams`, `NotFound`."""
        wrong = refuse_domain(params.host, denied=False)
        if wrong is not None:
            raise InvalidParams(wrong[0], key="host", nearest=wrong[1])
        served = await self._find(params.session)
        limit_s = await self._allow_max_s(params.session)
        if not 0 < params.duration_s <= limit_s:
            raise PolicyDenied(
                f"the profile's egress.allow_max_s is {limit_s:g}: a host may be allowed for at most that many seconds; "
                "an admin can raise it in /etc/coworkd/policies",
                key="duration_s",
            )
        async with self._in_turn():
            if self._served.get(params.session) is not served:
                raise Unavailable(f"session {params.session} was closed meanwhile; allow it again")
            return await self._allow(params, served)

    async def _allow(self, params: calls.EgressAllow, served: _Served) -> calls.EgressAllowed:
        strict = next((layer.source for layer in served.base.settings if layer.strict), None)
        if strict is not None:
            raise PolicyDenied(f"{strict} says strictAllowlist: no allowance lifts its list", key="host")
        now = self._clock()
        kept = tuple(one for one in served.allowances if one.until > now and one.pattern != params.host)
        if len(kept) >= ALLOWANCE_LIMIT:
            raise LimitExceeded(f"the session has {ALLOWANCE_LIMIT} allowances; wait until one has ended")
        until = now + params.duration_s
        await self._audit.record(
            "egress.allow",
            {"session": params.session, "host": params.host, "until": until, "duration_s": params.duration_s},
        )
        before = served.allowances
        served.allowances = (*kept, words.Allowance(pattern=params.host, until=until))
        try:
            await self._tell(params.session, served, close_forbidden=False)
        except CoworkError:
            served.allowances = before
            raise
        return calls.EgressAllowed(host=params.host, until=until)

    async def log(self, params: calls.EgressLog) -> calls.EgressRecords:
        """The newest records of the way out, from the audit log. Raises `InvalidParams`, `DiskFailed`."""
        if not 1 <= params.limit <= LOG_LIMIT:
            raise InvalidParams(f"limit must be 1 to {LOG_LIMIT}, not {params.limit}", key="limit")
        found = await self._audit.find(
            kinds=tuple(_KINDS), session=params.session, refused_only=params.refused_only, limit=params.limit
        )
        return calls.EgressRecords(records=tuple(map(_shown, found.records)), truncated=found.truncated)

    async def status(self) -> calls.EgressStatus:
        """Who serves, and what there is of every session."""
        return calls.EgressStatus(
            pid=self._link.pid or 0,
            degraded=self._link.degraded,
            unrecorded=self._records.unrecorded,
            sessions=self._records.counts(),
        )

    async def presets(self) -> calls.EgressPresets:
        """What each preset came to on this machine."""
        return self._policies.presets()

    def allowances(self, session: str) -> tuple[words.Allowance, ...]:
        """Those that hold now."""
        served = self._served.get(session)
        return () if served is None else served.effective(self._clock()).allowances

    # -- inside -------------------------------------------------------------------------------------------------

    def _compose_begin(self) -> words.Begin:
        return words.Begin(id=0, version=self._version, filter_bpf=self._filter_program().bpf, host_uri=self._host_uri)

    async def _begun(self, begun: words.Begun) -> None:
        self._kept = begun.sessions
        for served in self._served.values():
            served.pid = None
        if self._records.durable:
            await self._link.recorded(self._records.durable)
        fields = {"pid": begun.pid, "sessions": begun.sessions, "degraded": begun.degraded}
        try:
            await self._audit.record("egress.begin", fields)
        except CoworkError as error:  # no connection gets out unrecorded, whoever serves
            _log.error("that coworkd-egress begins is not recorded: %s", error.message)
        for session in list(self._served):
            async with self._in_turn():
                await self._hand_over(session)
        if self._is_settled:
            await self.stop_others()
        elif begun.sessions:
            try:
                await self._records.recall()
            except CoworkError as error:
                _log.warning("what was open before is not known: %s", error.message)

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        with trio.CancelScope(shield=True):
            async with self._turn:
                yield

    async def _hand_over(self, session: str) -> None:
        """Have a session served as far as that goes now."""
        served = self._served.get(session)
        if served is None or served.pid is not None:
            return
        try:
            await self._tell(session, served, close_forbidden=session in self._kept)
        except CoworkError as error:
            self._note(session, error.message)

    async def _mend(self) -> None:
        while True:
            await trio.sleep(MEND_S)
            for session in list(self._stranded):
                async with self._in_turn():
                    await self._hand_over(session)

    def _note(self, session: str, problem: str | None) -> None:
        """Why a session cannot be handed over, or None; told where it has changed."""
        if self._stranded.get(session) == problem:
            return
        if problem is None:
            del self._stranded[session]
        else:
            _log.error("session %s has no way out: %s", session, problem)
            self._stranded[session] = problem
        self._tell_state()

    def _take_link_state(self, reason: str | None) -> None:
        self._link_state = reason
        self._tell_state()

    def _tell_state(self) -> None:
        stranded = [f"session {name} has no way out: {why}" for name, why in sorted(self._stranded.items())]
        more = len(stranded) - _STRANDED_TOLD
        if more > 0:
            stranded[_STRANDED_TOLD:] = [f"{more} more sessions have none"]
        self._on_state("; ".join([*([self._link_state] if self._link_state else []), *stranded]) or None)

    async def _tell(self, session: str, served: _Served, *, close_forbidden: bool) -> int:
        """Have coworkd-egress serve a session as `served` says now; how many connections that closed.

        One that is away hears of it when it begins. Raises what stands in the way of one that is there.
        """
        served.close_forbidden |= close_forbidden
        try:
            return await self._tell_now(session, served)
        except Unavailable as error:
            _log.info("session %s waits for its way out: %s", session, error.message)
            return 0

    async def _tell_now(self, session: str, served: _Served) -> int:
        pid = self._link.pid
        await self._trust_inspector(served.base)
        egress = served.effective(self._clock())
        if served.pid != pid or pid is None:
            await self._link.ask(words.Serve(id=0, session=session, egress=egress), served.listeners)
            served.pid = pid
            self._note(session, None)
            if not served.close_forbidden or session not in self._kept:
                served.close_forbidden = False
                return 0
        done = await self._link.ask(
            words.Change(id=0, session=session, egress=egress, close_forbidden=served.close_forbidden)
        )
        assert isinstance(done, words.Done)
        served.close_forbidden = False
        return done.closed

    async def _trust_inspector(self, egress: words.SessionEgress) -> None:
        if self._link.pid == self._inspector or not any(layer.inspect for layer in egress.settings):
            return
        inspector = self._link.pid
        made = await self._link.ask(words.GetCa(id=0))
        assert isinstance(made, words.CaMade)
        await self._trust.set_inspection_ca(made.pem)
        await self._link.ask(words.TrustRoots(id=0, pem=self._trust.installed_pem))
        self._inspector = inspector

    async def _find(self, session: str) -> _Served:
        assert self._sessions is not None
        await self._sessions.open(session)
        served = self._served.get(session)
        if served is None:
            raise Unavailable(f"session {session} has no listeners; call session.ensure again")
        return served

    async def _allow_max_s(self, session: str) -> float:
        assert self._sessions is not None
        view = await self._sessions.open(session)
        return (await self._policies.effective(view.profile, view.limits)).profile.egress.allow_max_s


_KINDS: dict[str, words.EgressEventKind] = {
    "egress.decision": "open",
    "egress.close": "close",
    "egress.request": "request",
}


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _shown(record: dict[str, Any]) -> calls.EgressRecord:
    """An audit record as `egress.log` tells it."""
    given = {name: record[name] for name in calls.EgressRecord.__struct_fields__ if record.get(name) is not None}
    kind = "refused" if record.get("allowed") is False else _KINDS[record["kind"]]
    return calls.EgressRecord(**{**_UNSAID, **given, "kind": kind})


_UNSAID = {"session": "", "connection": 0, "protocol": "unknown", "host": "", "port": 0, "rule": None, "reason": ""}
