"""The way out of sessions: which policy holds for whom, handed to coworkd-egress with the sessions' listeners; and what it tells.

Rules
- What a session may reach is composed by whoever serves it; only the time-limited allowances are added here. They end with their time,
  with the session's closing, and with this coworkd.
- Whose listeners coworkd-egress has, and what it is told of them, is `egress_serving`'s.
- Nothing here parses what a session sends.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model import egress as words
from coworkd.model.errors import CoworkError, InvalidParams, LimitExceeded, PolicyDenied, Unavailable
from coworkd.model.policy import LimitsRequest, SeccompProgram
from coworkd.model.ports import AuditReader, EventPort, SessionDirectory, SessionPolicyPort
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.patterns import refuse_domain
from coworkd.services.egress_link import Connect, EgressLink
from coworkd.services.egress_records import EgressRecords
from coworkd.services.egress_serving import InspectionTrust, Served, Serving

ALLOWANCE_LIMIT = 64
"""Allowances a session has at once."""
LOG_LIMIT = 1000
_BEGIN_TIMEOUT_S = 5.0
_RECORD_S = 5.0
_log = logging.getLogger("coworkd.egress")


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
        self._audit = audit
        self._clock = clock
        self._is_settled = False
        """Whether all sessions that go on are served again."""
        self._sessions: SessionDirectory | None = None
        self._on_state = on_state
        self._states: dict[str, str | None] = {}
        """What is told of, in order → what is wrong with it."""
        self._records = EgressRecords(audit=audit, events=events, clock=clock)
        self._link = EgressLink(
            connect,
            begin=self._compose_begin,
            on_pid=self._records.begin,
            on_begun=self._begun,
            on_told=self._records.told,
            on_state=partial(self._take_state, "link"),
        )
        self._serving = Serving(self._link, trust, on_problem=partial(self._take_state, "sessions"), clock=clock)

    def attach(self, sessions: SessionDirectory) -> None:
        """Say who opens sessions; before `serve`."""
        self._sessions = sessions

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the conversation and the records. Started once coworkd-egress serves, or after a while without it. Never returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._records.serve, self._link.recorded)
            nursery.start_soon(self._link.serve)
            nursery.start_soon(self._serving.mend)
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
        await self._serving.stop_kept()

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
        self._serving.close()

    async def trust_changed(self) -> None:
        """A host has installed or removed certificates: whoever inspects verifies servers by them from now on. Never fails."""
        await self._serving.trust_changed()

    # -- ports.EgressPort ---------------------------------------------------------------------------------------

    async def serve_session(self, session: str, egress: words.SessionEgress, listeners: tuple[int, ...], /) -> None:
        """See `ports.EgressPort.serve_session`."""
        self._records.expect(session)
        await self._serving.serve(session, egress, listeners)

    async def change(self, session: str, egress: words.SessionEgress, /, *, close_forbidden: bool) -> int:
        """See `ports.EgressPort.change`."""
        return await self._serving.change(session, egress, close_forbidden=close_forbidden)

    async def stop(self, session: str, /) -> None:
        """See `ports.EgressPort.stop`."""
        await self._serving.stop(session)
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
        until = self._clock() + params.duration_s
        await self._serving.allow(params.session, served, partial(self._admit, params, served, until))
        return calls.EgressAllowed(host=params.host, until=until)

    async def _admit(self, params: calls.EgressAllow, served: Served, until: float) -> tuple[words.Allowance, ...]:
        """The allowances with one more, which is recorded; judged in the session's turn, for its policy may have changed."""
        strict = next((layer.source for layer in served.base.settings if layer.strict), None)
        if strict is not None:
            raise PolicyDenied(f"{strict} says strictAllowlist: no allowance lifts its list", key="host")
        kept = tuple(one for one in served.allowances if one.until > self._clock() and one.pattern != params.host)
        if len(kept) >= ALLOWANCE_LIMIT:
            raise LimitExceeded(f"the session has {ALLOWANCE_LIMIT} allowances; wait until one has ended")
        await self._audit.record(
            "egress.allow",
            {"session": params.session, "host": params.host, "until": until, "duration_s": params.duration_s},
        )
        return (*kept, words.Allowance(pattern=params.host, until=until))

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

    def totals(self) -> dict[str, int]:
        """The counts of all sessions, added up."""
        sessions = [structs.asdict(counts) for counts in self._records.counts()]
        names = [name for name in calls.EgressSessionCounts.__struct_fields__ if name != "session"]
        return {**{name: sum(one[name] for one in sessions) for name in names}, "unrecorded": self._records.unrecorded}

    async def presets(self) -> calls.EgressPresets:
        """What each preset came to on this machine."""
        return self._policies.presets()

    def allowances(self, session: str) -> tuple[words.Allowance, ...]:
        """Those that hold now."""
        served = self._serving.find(session)
        return () if served is None else served.effective(self._clock()).allowances

    # -- inside -------------------------------------------------------------------------------------------------

    def _compose_begin(self) -> words.Begin:
        return words.Begin(id=0, version=self._version, filter_bpf=self._filter_program().bpf, host_uri=self._host_uri)

    async def _begun(self, begun: words.Begun) -> None:
        if self._records.durable:
            await self._link.recorded(self._records.durable)
        fields = {"pid": begun.pid, "sessions": begun.sessions, "degraded": begun.degraded}
        try:
            await self._audit.record("egress.begin", fields)
        except CoworkError as error:  # no connection gets out unrecorded, whoever serves
            _log.error("that coworkd-egress begins is not recorded: %s", error.message)
        await self._serving.hand_over_all(begun.sessions)
        if self._is_settled:
            await self._serving.stop_kept()
        elif begun.sessions:
            try:
                await self._records.recall()
            except CoworkError as error:
                _log.warning("what was open before is not known: %s", error.message)

    def _take_state(self, part: str, reason: str | None) -> None:
        self._states[part] = reason
        self._on_state("; ".join(filter(None, self._states.values())) or None)

    async def _find(self, session: str) -> Served:
        assert self._sessions is not None
        await self._sessions.open(session)
        served = self._serving.find(session)
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


def _shown(record: dict[str, Any]) -> calls.EgressRecord:
    """An audit record as `egress.log` tells it."""
    given = {name: record[name] for name in calls.EgressRecord.__struct_fields__ if record.get(name) is not None}
    kind = "refused" if record.get("allowed") is False else _KINDS[record["kind"]]
    return calls.EgressRecord(**{**_UNSAID, **given, "kind": kind})


_UNSAID = {"session": "", "connection": 0, "protocol": "unknown", "host": "", "port": 0, "rule": None, "reason": ""}
