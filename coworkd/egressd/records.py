"""What is told of one thing a client asked for: `open` or `refused`, then one `close` for each `open`."""

from __future__ import annotations

from coworkd.egressd.refusals import Refusals
from coworkd.egressd.state import State
from coworkd.model.egress import EgressEvent, EgressEventKind, Verdict
from coworkd.proxy.events import Protocol


class Record:
    """One request's events; its number joins them."""

    __slots__ = (
        "_began",
        "_host",
        "_is_open",
        "_is_told",
        "_number",
        "_port",
        "_protocol",
        "_refusals",
        "_rule",
        "_session",
        "_state",
        "address",
        "upstream",
    )

    def __init__(self, state: State, session: str, refusals: Refusals, protocol: Protocol) -> None:
        self._state = state
        self._session = session
        self._refusals = refusals
        self._protocol = protocol
        self._number = state.next_number()
        self._host = ""
        self._port = 0
        self._rule: str | None = None
        self._began = 0.0
        self._is_open = False
        self._is_told = False
        """Whether anything was."""
        self.upstream = ""
        self.address = ""

    def set_verdict(self, verdict: Verdict) -> None:
        """What was decided; part of every event from here on."""
        self._host, self._port, self._rule = verdict.host, verdict.port, verdict.rule

    def open(self) -> int:
        """It is allowed; the `seq` that has to be durable before bytes flow."""
        self._is_open = self._is_told = True
        self._began = self._state.loop.now
        return self._state.events.add(self._compose("open", rule=self._rule))

    def refuse(self, reason: str) -> None:
        """It is refused; repeats are told together."""
        self._is_told = True
        self._state.refused_total += 1
        self._refusals.tell(self._compose("refused", reason=reason, rule=self._rule))

    def request(self, method: str, path: str, status: int, reason: str) -> bool:
        """One request of an inspected connection; whether it has to be the last, for want of room for events."""
        event = self._compose("request", reason=reason, method=method, path=path, status=status)
        self._state.events.add(event)
        return not self._state.events.has_room

    def close(self, reason: str, *, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """The end of an open one, once; of any other nothing is told."""
        if not self._is_open:
            return
        state = self._state
        state.sent_bytes += sent_bytes
        state.received_bytes += received_bytes
        took_s = max(0.0, state.loop.now - self._began)
        event = self._compose(
            "close", reason=reason, sent_bytes=sent_bytes, received_bytes=received_bytes, took_s=took_s
        )
        state.events.add(event)
        self._is_open = False

    def fail(self, reason: str, *, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """The end for a reason of ours, at any moment: of one that was neither opened nor refused it is told as a refusal."""
        if self._is_told:
            self.close(reason, sent_bytes=sent_bytes, received_bytes=received_bytes)
        else:
            self.refuse(reason)

    def _compose(
        self,
        kind: EgressEventKind,
        *,
        rule: str | None = None,
        reason: str = "",
        sent_bytes: int = 0,
        received_bytes: int = 0,
        took_s: float = 0.0,
        method: str = "",
        path: str = "",
        status: int = 0,
    ) -> EgressEvent:
        return EgressEvent(
            seq=self._state.events.next_seq,
            kind=kind,
            session=self._session,
            connection=self._number,
            at=self._state.wall(),
            protocol=self._protocol,
            host=self._host,
            port=self._port,
            rule=rule,
            reason=reason,
            upstream=self.upstream,
            address=self.address,
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
            took_s=took_s,
            method=method,
            path=path,
            status=status,
        )
