"""One client connection's life: its request, the decision, the way out, and what carries its bytes.

    request ─Asked─▶ decision ─granted─▶ tunnel ───▶ closed
       ▲                │  └───granted─▶ exchange ─▶ closing or closed
       └─────────────── │ ── plain HTTP ────┘
                        └─refused─▶ closing ───────▶ closed

Rules
- No byte leaves before the `open` event is recorded: it is told, and the way is dialled, at the same time; the client hears of it when both
  are done. Each `open` has exactly one `close` of the same number; a refusal after resolution stands between them.
- Deadlines are looked at by `sweep`, a few times a second: nothing is timed for each connection. One that rests on an allowance is
  judged anew when that ends.
- Whoever calls into a connection, the loop included, does so through its fence. A fault of ours ends it (`_break_off`), and no other.
- The client is read here in the phase `request` only; then by what carries it, and while it is decided about by nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from coworkd.egressd.dial import Dial, Target, Way
from coworkd.egressd.exchange import Exchange, Outcome
from coworkd.egressd.farewell import Farewell
from coworkd.egressd.fence import Fence
from coworkd.egressd.forward import HttpPump
from coworkd.egressd.loop import IN, ONCE, OUT
from coworkd.egressd.pump import Pump
from coworkd.egressd.records import Record
from coworkd.egressd.relay import Relay
from coworkd.egressd.tcp import no_delay, reset
from coworkd.model.egress import Inspection, Verdict
from coworkd.netpolicy.guard import Guard
from coworkd.proxy.events import Asked, Ended, Misused, NeedData, Refusal, Route, Send, Tunnelled
from coworkd.proxy.front import Front

if TYPE_CHECKING:
    from coworkd.egressd.session import Session

_READ_BYTES = 65536
_IN_THE_OPEN = "requests to this host are inspected, and taken over TLS only: use https://"
_UNSEEN = "requests to this host are inspected now, more than they were when the connection was opened"
_LIMIT_WORDS = "this session has too many connections, at once or a second; try again in a moment"
_AWAY_WORDS = "who records connections is away, so none is made; try again in a moment"
KNOWN = -1
"""Instead of a mask: the loop has the socket, whatever it is asked for."""

Phase = Literal["request", "decision", "tunnel", "exchange", "closing", "closed"]


class Connection:
    """Owns the client's socket, and all that it leads to. See the rules above."""

    __slots__ = (
        "_asked",
        "_carried",
        "_carrier",
        "_deadline",
        "_dial",
        "_farewell",
        "_fence",
        "_front",
        "_guard",
        "_inspection",
        "_out",
        "_over_limit",
        "_pump",
        "_record",
        "_recorded",
        "_registered",
        "_seq",
        "_served",
        "_session",
        "_socket",
        "_verdict",
        "_way",
        "phase",
    )

    def __init__(self, session: Session, client: socket.socket, *, over_limit: bool) -> None:
        self._session = session
        self._fence = Fence(session.state.loop, session.state.faults, self._break_off)
        self._socket = client
        self._over_limit = over_limit
        self._registered = False
        self._out = b""
        """Words for the client that its socket did not take yet."""
        self.phase: Phase = "request"
        self._deadline = session.state.loop.now + session.limits.head_s
        self._front: Front | None = Front()
        self._asked: Asked | None = None
        self._served = False
        """Whether it asks for more than its first."""
        self._verdict: Verdict | None = None
        self._guard: Guard | None = None
        """By which addresses are judged while a way is dialled."""
        self._inspection: Inspection | None = None
        """How it is looked at while it is open."""
        self._record: Record | None = None
        self._seq = 0
        self._recorded = False
        self._dial: Dial | None = None
        self._way: Way | None = None
        self._pump: Pump | None = None
        self._carrier: Relay | Exchange | None = None
        self._carried = (0, 0)
        """What the exchange sent and received from which a tunnel came."""
        self._farewell: Farewell | None = None

    # -- from the session ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what is there: clients mostly speak at once."""
        self._fence.run(self._ready, 0)

    def sweep(self, now: float) -> None:
        """Look at the deadlines."""
        self._fence.run(self._sweep, now)

    def judge_again(self) -> bool:
        """The session's rules have changed, or time has passed: whether this one was closed for it."""
        return self._fence.run(self._judge_again) is True

    def end(self, reason: str) -> None:
        """Cut it."""
        self._fence.run(self._end, reason)

    def room_came(self) -> None:
        """There is room for events again: what was held back is decided."""
        self._fence.run(self._decide_at_last)

    # -- deadlines and rules ------------------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        verdict = self._verdict
        if (
            verdict is not None
            and verdict.until is not None
            and self._session.state.wall() >= verdict.until
            and self.judge_again()
        ):
            return
        carrier = self._carrier
        if carrier is not None:
            idle_s = self._session.limits.idle_s
            if now - carrier.moved_at < idle_s:
                return
            reason = f"nothing moved for {idle_s:g} s"
            if isinstance(carrier, Relay):
                carrier.end(reason)
            else:
                carrier.time_out(reason)
        elif self._farewell is not None:
            if now >= self._farewell.deadline:
                self._farewell.cut()
        elif now >= self._deadline:
            self._expire()

    def _judge_again(self) -> bool:
        verdict, record = self._verdict, self._record
        if verdict is None or record is None or self.phase not in ("decision", "tunnel", "exchange"):
            return False
        session = self._session
        again = session.rules.decide(verdict.host, verdict.port, now=session.state.wall())
        why = None if again.allowed else again.reason
        if why is None:
            why = self._judge_address(record.address, verdict.port)
        if why is None and self._is_unseen(verdict.host):
            why = _UNSEEN
        if why is None:
            self._verdict = again
            return False
        if self.phase == "decision":
            self._fail(Refusal(kind="allowlist", reason=again.told or why), why)
        else:
            self._end(f"the policy forbids it now: {why}")
        return True

    def _judge_address(self, address: str, port: int) -> str | None:
        return self._session.guard.judge(address, is_own=False, port=port) if address else None

    def _is_unseen(self, host: str) -> bool:
        """Whether the rules want more looked at than is; a tunnel that is not open yet will be opened by the rules of then."""
        if self.phase == "decision" and self._asked is not None and self._asked.tunnel:
            return False
        wanted, given = self._session.rules.inspects(host), self._inspection
        if wanted is None:
            return False
        return given is None or not _approves_less(given.token_sha256, wanted.token_sha256)

    def _end(self, reason: str) -> None:
        if isinstance(self._carrier, Relay):
            self._carrier.end(reason)
        elif self._farewell is not None:
            self._farewell.cut()
        else:
            self._cut(reason)

    def _decide_at_last(self) -> None:
        if self.phase == "decision" and self._record is None and self._front is not None and self._asked is not None:
            self._decide(self._front, self._asked)

    # -- the client's request -----------------------------------------------------------------------------------

    def _ready(self, _: int) -> None:
        front = self._front
        if front is None or self.phase != "request":
            return
        if self._out:
            self._flush()
            if not self._out and self.phase == "request":
                self._act(front)
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._watch()
            return
        except OSError:
            self._cut("")
            return
        front.receive_data(data)
        self._act(front)

    def _act(self, front: Front) -> None:
        """Do what the front says, until it needs more or something has to come first."""
        while self.phase != "closed":
            event = front.next_event()
            if isinstance(event, Asked):
                self._decide(front, event)
                return
            if isinstance(event, Send):
                self._out += event.data
                self._flush()
            elif isinstance(event, Tunnelled):
                self._carry_tunnel(front)
                return
            elif isinstance(event, Misused):
                self._note_misuse(event)
            elif isinstance(event, Ended):
                self._finish(abrupt=event.abrupt)
                return
            else:
                assert isinstance(event, NeedData)
                if self.phase == "request":
                    self._watch()
                return

    def _note_misuse(self, misused: Misused) -> None:
        session = self._session
        Record(session.state, session.name, session.refusals, misused.protocol).refuse(misused.reason)

    def _decide(self, front: Front, asked: Asked) -> None:
        session, state = self._session, self._session.state
        self.phase = "decision"
        self._asked = asked
        self._record = None
        if not state.events.has_room:
            state.held.append(self)
            return
        record = self._record = Record(state, session.name, session.refusals, asked.protocol)
        if self._over_limit or (self._served and not session.take_token()):
            record.refuse(_LIMIT_WORDS)
            self._refuse(front, Refusal(kind="limit", reason=_LIMIT_WORDS))
            return
        verdict = self._verdict = session.rules.decide(asked.host, asked.port, now=state.wall())
        record.set_verdict(verdict)
        if not verdict.allowed:
            record.refuse(verdict.reason)
            self._refuse(front, Refusal(kind="allowlist", reason=verdict.told, denied_reason=verdict.policy_words))
            return
        if not asked.tunnel and session.rules.inspects(verdict.host) is not None:
            # In the open nobody would look at what the policy wants looked at.
            record.refuse(_IN_THE_OPEN)
            self._refuse(front, Refusal(kind="allowlist", reason=_IN_THE_OPEN))
            return
        self._guard = session.guard
        self._inspection = None
        means = state.means._replace(loop=self._fence)
        self._dial = dial = Dial(means, session.guard, self._compose_target(verdict, asked), self._way_came)
        record.upstream = dial.upstream
        self._deadline = state.loop.now + session.limits.connect_s
        self._recorded = False
        self._seq = record.open()
        state.events.wait_recorded(self._seq, self._fence.guard(self._was_recorded))
        dial.start()

    def _compose_target(self, verdict: Verdict, asked: Asked) -> Target:
        rules = self._session.rules
        mitm = rules.mitm_for(verdict.host)
        return Target(
            session=self._session.name,
            host=verdict.host,
            port=verdict.port,
            tunnel=asked.tunnel,
            route=rules.route(verdict.host, verdict.port, tunnel=asked.tunnel),
            mitm_path=mitm.socket_path if mitm is not None else None,
        )

    # -- the way out --------------------------------------------------------------------------------------------

    def _way_came(self, outcome: Way | Refusal) -> None:
        self._dial = None
        if isinstance(outcome, Refusal):
            self._fail(outcome)
            return
        self._way = outcome
        assert self._record is not None
        assert self._verdict is not None
        self._record.address = outcome.address
        if self._guard is not self._session.guard:  # the policy has changed meanwhile
            why = self._judge_address(outcome.address, self._verdict.port)
            if why is not None:
                self._fail(Refusal(kind="address", reason=f"{self._verdict.host} {why}"))
                return
        if self._recorded:
            self._grant(outcome)
        else:
            self._deadline = self._session.state.loop.now + self._session.limits.head_s

    def _was_recorded(self, seq: int) -> None:
        if self.phase != "decision" or seq != self._seq:
            return
        self._recorded = True
        if self._way is not None:
            self._grant(self._way)

    def _grant(self, way: Way) -> None:
        front, verdict, asked = self._front, self._verdict, self._asked
        assert front is not None
        assert verdict is not None
        assert asked is not None
        no_delay(way.connection)
        no_delay(self._socket)
        route = Route(host=verdict.host, absolute_form=way.absolute_form, proxy_authorization=way.authorization)
        if asked.tunnel:
            front.grant(route)
            self._act(front)
        else:
            self._carry(HttpPump(front, route), way, from_client=b"")

    def _carry_tunnel(self, front: Front) -> None:
        verdict, way, record = self._verdict, self._way, self._record
        assert verdict is not None
        assert way is not None
        assert record is not None
        inspection = self._inspection = self._session.rules.inspects(verdict.host)
        if inspection is None:
            self._relay(
                way,
                to_client=self._out + way.rest,
                to_upstream=front.rest,
                masks=(KNOWN if self._registered else 0, KNOWN if way.registered else 0),
            )
            return
        try:
            pump = self._session.state.inspector.inspect(verdict.host, verdict.port, inspection, self._tell_request)
        except (ImportError, OSError) as error:  # it is to be looked at, so it does not go unseen
            self._cut(f"inspection is wanted, and not to be had: {error}")
            return
        from_client = front.rest
        self._front = None
        self._carry(pump, way, from_client=from_client)

    def _tell_request(self, method: str, path: str, status: int, reason: str) -> bool:
        """See `pump.TellRequest`. One past the rate is the connection's last, and the next one has to be accepted."""
        assert self._record is not None
        is_last = self._record.request(method, path, status, reason)
        is_further, self._served = self._served, True
        return (is_further and not self._session.take_token()) or is_last

    def _relay(self, way: Way, *, to_client: bytes, to_upstream: bytes, masks: tuple[int, int]) -> None:
        session = self._session
        self.phase = "tunnel"
        self._front = self._asked = self._way = None
        self._out = b""
        relay = Relay(self._fence, session.state.pool, session.share, self._socket, way.connection, self._relay_over)
        self._carrier = relay
        relay.start(to_client=to_client, to_upstream=to_upstream, client_mask=masks[0], upstream_mask=masks[1])

    def _carry(self, pump: Pump, way: Way, *, from_client: bytes) -> None:
        self.phase = "exchange"
        self._pump = pump
        to_client, self._out = self._out, b""
        session = self._session
        exchange = Exchange(self._fence, pump, self._socket, way.connection, self._exchange_over, budget=session.budget)
        self._carrier = exchange
        exchange.start(
            to_client=to_client,
            from_client=from_client,
            from_upstream=way.rest,
            client_mask=KNOWN if self._registered else 0,
            upstream_mask=KNOWN if way.registered else 0,
        )

    # -- ends ---------------------------------------------------------------------------------------------------

    def _relay_over(self, reason: str) -> None:
        relay, record = self._carrier, self._record
        assert relay is not None
        assert record is not None
        self._carrier = None
        sent, received = self._carried
        record.close(reason, sent_bytes=sent + relay.sent_bytes, received_bytes=received + relay.received_bytes)
        self._closed()

    def _exchange_over(self, outcome: Outcome, reason: str) -> None:
        exchange, pump, front, way, record = self._carrier, self._pump, self._front, self._way, self._record
        assert isinstance(exchange, Exchange)
        assert pump is not None
        assert way is not None
        assert record is not None
        self._carrier = self._pump = None
        to_client, to_upstream = exchange.unsent
        if outcome == "raw":
            rest = front.rest if front is not None else b""
            masks = (exchange.client_mask, exchange.upstream_mask)
            # What waits for the client was received by the exchange, and is counted by the tunnel.
            self._carried = (exchange.sent_bytes, max(0, exchange.received_bytes - len(to_client)))
            self._relay(way, to_client=to_client, to_upstream=to_upstream + rest, masks=masks)
            return
        self._way = None
        self._registered = exchange.client_mask != 0
        if self._registered:
            self._fence.handle(self._socket.fileno(), self._ready)
        record.close(reason, sent_bytes=exchange.sent_bytes, received_bytes=exchange.received_bytes)
        self._out = to_client
        if outcome == "lost":
            self._cut("")
        elif outcome == "ended" or front is None:
            self._finish(abrupt=pump.abrupt)
        else:
            self._await_request(front)

    def _await_request(self, front: Front) -> None:
        """The client may ask for something else."""
        self.phase = "request"
        self._served = True
        self._asked = self._verdict = self._record = None
        self._deadline = self._session.state.loop.now + self._session.limits.head_s
        if self._out:
            self._flush()
        if not self._out and self.phase == "request":
            self._act(front)

    def _fail(self, refusal: Refusal, why: str = "") -> None:
        """An open one comes to nothing; `why` is for the records, where it says more than the client is told."""
        front, record = self._front, self._record
        assert front is not None
        assert record is not None
        if refusal.kind in ("allowlist", "address"):
            record.refuse(why or refusal.reason)
        record.close(why or refusal.reason)
        self._let_go()
        self._refuse(front, refusal)

    def _refuse(self, front: Front, refusal: Refusal) -> None:
        front.refuse(refusal)
        self._act(front)

    def _expire(self) -> None:
        front = self._front
        if front is None or self._out:  # it does not even take what it was answered
            self._cut("client: it does not take the answer")
        elif self.phase == "request":
            front.expire()
            self._act(front)
        elif self._record is None:  # held: nothing may be decided
            self._refuse(front, Refusal(kind="unavailable", reason=_AWAY_WORDS))
        elif self._way is not None:
            self._fail(Refusal(kind="unavailable", reason=_AWAY_WORDS))
        else:
            limit_s = self._session.limits.connect_s
            self._fail(Refusal(kind="timeout", reason=f"no way out was open after {limit_s:g} s"))

    def _finish(self, *, abrupt: bool) -> None:
        if abrupt:
            self._cut("")
            return
        self.phase = "closing"
        self._let_go()
        self._front = self._asked = None
        self._farewell = Farewell(self._fence, self._socket, self._out, self._closed)
        self._farewell.start(registered=self._registered)

    def _cut(self, reason: str) -> None:
        if self.phase == "closed":
            return
        if self._record is not None:
            carrier = self._carrier
            sent, received = (carrier.sent_bytes, carrier.received_bytes) if carrier is not None else (0, 0)
            self._record.close(reason, sent_bytes=sent, received_bytes=received)
        self._let_go()
        reset(self._socket)
        self._fence.forget(self._socket.fileno())
        self._socket.close()
        self._closed()

    def _break_off(self, incident: str) -> None:
        """A fault of ours, whose traceback the log has: nothing is known about the state of this but what is owned."""
        if self.phase == "closed":
            return
        session, carrier, way, dial = self._session, self._carrier, self._way, self._dial
        reason = f"internal error, incident {incident}"
        record = self._record or Record(session.state, session.name, session.refusals, "unknown")
        sent, received = self._carried
        if carrier is not None:
            sent, received = sent + carrier.sent_bytes, received + carrier.received_bytes
        record.fail(reason, sent_bytes=sent, received_bytes=received)
        self._carrier = self._pump = self._way = self._dial = None
        reset(self._socket)
        if isinstance(carrier, Relay):
            carrier.abandon()
        elif carrier is not None:
            carrier.end()
        if way is not None:
            way.connection.close()
        if dial is not None:
            dial.cancel()
        self._socket.close()
        self._closed()

    def _closed(self) -> None:
        """The socket is closed."""
        self.phase = "closed"
        self._fence.outlive()
        self._front = self._asked = self._farewell = None
        self._session.closed(self)

    def _let_go(self) -> None:
        """Of all that leads out."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if isinstance(self._carrier, Exchange):
            self._carrier.end()
            self._carrier = self._pump = self._way = None
        if self._way is not None:
            self._fence.forget(self._way.connection.fileno())
            self._way.connection.close()
            self._way = None

    # -- words --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what waits. What is left is sent when the client takes it; one that is gone is closed."""
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = b""
            self._cut("client: it is gone")
            return
        if self._out and self.phase == "request":
            self._watch()

    def _watch(self) -> None:
        """Be called once more when there is something to read, or room for what waits."""
        mask = ONCE | (OUT if self._out else IN)
        loop, fd = self._fence, self._socket.fileno()
        if self._registered:
            loop.modify(fd, mask)
        else:
            self._registered = True
            loop.register(fd, mask, self._ready)


def _approves_less(now: Collection[str], then: Collection[str]) -> bool:
    """Whether all that these token sums let pass is let pass by those; none at all let pass everything."""
    return not then or (bool(now) and set(now) <= set(then))
