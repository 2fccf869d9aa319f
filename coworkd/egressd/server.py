"""coworkd-egress as a whole: one supervisor, every session.

Rules
- One supervisor at a time: a second is answered by end of file while the first lives. Only root may connect.
- `Begin` comes first, and with it the seccomp filter: without one nothing is served. Threads are made after it.
- A supervisor that goes leaves everything flowing. If none comes back within `linger_s` (None: for ever) all is ended.
- Events are told at the end of each turn, many at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import coworkd
from coworkd.egressd.dial import Means
from coworkd.egressd.events import Events
from coworkd.egressd.link import SupervisorLink
from coworkd.egressd.loop import IN, OUT, Loop
from coworkd.egressd.own_addresses import OwnAddresses
from coworkd.egressd.pipes import PipePool
from coworkd.egressd.pump import Inspector
from coworkd.egressd.resolve import Lookup, Resolver, look_up
from coworkd.egressd.session import Session
from coworkd.egressd.state import State
from coworkd.egressd.tls_leg import ParentTrust
from coworkd.model import egress as words
from coworkd.system.supervised import peer_uid

SWEEP_S = 0.25
_SESSION_LIMIT = 4096
_LISTENER_LIMIT = 16

InstallFilter = Callable[[bytes], None]


class Egress:
    """Everything coworkd-egress holds. `run` serves until `Quit`, TERM, or the linger time has passed."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        linger_s: float | None,
        degraded: list[str],
        install_filter: InstallFilter,
        inspector: Inspector,
        lookup: Lookup = look_up,
        trusted_uid: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trusted_uid` is who may be supervisor; 0 but for tests."""
        self._listener = listener
        self._linger_s = linger_s
        self._degraded = degraded
        self._install_filter = install_filter
        self._trusted_uid = trusted_uid
        self._is_filtered = False
        self._loop = loop = Loop(clock)
        events = Events(self._room_came)
        self._resolver = Resolver(loop, lookup)
        self._means = Means(
            loop=loop,
            resolver=self._resolver,
            own=OwnAddresses(lambda: loop.now),
            host_uri="",
            parent_trust=ParentTrust(),
        )
        self._state = State(loop, PipePool(), events, self._means, inspector, time.time)
        self._sessions: dict[str, Session] = {}
        self._supervisor: SupervisorLink | None = None
        self._has_begun = False
        self._waits_to_send = False
        self._alone_since = loop.now
        self._handlers: dict[type, Callable[[Any, list[int]], words.Answer | None]] = {
            words.Begin: self._begin,
            words.Serve: self._serve,
            words.Change: self._change,
            words.Stop: self._stop,
            words.GetCa: self._get_ca,
            words.TrustRoots: self._trust_roots,
            words.Count: self._count,
            words.Ping: self._ping,
            words.Recorded: self._recorded,
            words.Quit: self._quit,
        }

    @property
    def state(self) -> State:
        """What all sessions share."""
        return self._state

    @property
    def loop(self) -> Loop:
        return self._loop

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, wakeup_fd: int) -> None:
        """Serve. `wakeup_fd` becomes readable when a signal has come."""
        self._loop.register(wakeup_fd, IN, lambda _: self._take_signals(wakeup_fd))
        self.start()
        try:
            self._loop.run()
        finally:
            self.close()

    def start(self) -> None:
        """Have the loop serve supervisors."""
        self._loop.register(self._listener.fileno(), IN, lambda _: self._accept())
        self._loop.at_end_of_turn(self._tell)
        self._sweep()

    def close(self) -> None:
        """End everything."""
        self._close_sessions()
        self._hang_up()
        self._state.pool.close()
        self._resolver.close()
        self._loop.close()

    def _close_sessions(self) -> None:
        """Close them all, and tell of it as far as somebody listens."""
        for session in self._sessions.values():
            session.close("coworkd-egress ends")
        self._sessions.clear()
        self._tell()

    def _take_signals(self, wakeup_fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in os.read(wakeup_fd, 4096):
                self._loop.stop()

    def _sweep(self) -> None:
        for session in list(self._sessions.values()):
            session.sweep()
        self._state.pool.trim()
        alone_s = self._loop.now - self._alone_since
        if self._supervisor is None and self._linger_s is not None and alone_s > self._linger_s:
            self._loop.stop()
            return
        self._loop.call_later(SWEEP_S, self._sweep)

    def _room_came(self) -> None:
        self._state.room_came()
        for session in list(self._sessions.values()):
            session.listen_again()

    # -- the supervisor -----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        # The one before may have hung up in the same moment: a supervisor that was killed and started again.
        self._receive()
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if peer_uid(connection) != self._trusted_uid or self._supervisor is not None:
            connection.close()
            return
        self._supervisor = SupervisorLink(connection)
        self._has_begun = False
        self._waits_to_send = False
        self._loop.register(connection.fileno(), IN, self._link_ready)

    def _link_ready(self, mask: int) -> None:
        link = self._supervisor
        if link is not None and mask & OUT:
            link.flush()
        self._receive()

    def _receive(self) -> None:
        while self._supervisor is not None and not self._supervisor.closed:
            received = self._supervisor.receive()
            if received is None:
                break
            request, fds = received
            try:
                answer = self._answer(request, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            if answer is not None:
                self._supervisor.answer(answer)
        self._settle()

    def _answer(self, request: words.Request, fds: list[int]) -> words.Answer | None:
        if not self._has_begun and not isinstance(request, words.Begin):
            return None if isinstance(request, words.Recorded) else _refuse(request.id, "Begin comes first")
        try:
            return self._handlers[type(request)](request, fds)
        except OSError as error:
            assert not isinstance(request, words.Recorded)
            return _refuse(request.id, f"{type(request).__name__}: {error.strerror or error}")

    def _tell(self) -> None:
        link = self._supervisor
        if link is None:
            return
        if self._has_begun and self._state.events.untold and not link.closed:
            self._state.events.tell(link)
        self._settle()

    def _settle(self) -> None:
        """Ask the loop for what the link needs; let go of one that has ended."""
        link = self._supervisor
        if link is None:
            return
        if link.closed:
            self._hang_up()
            return
        waits = link.behind or (self._has_begun and self._state.events.untold)
        if waits != self._waits_to_send:
            self._waits_to_send = waits
            self._loop.modify(link.fileno(), IN | (OUT if waits else 0))

    def _hang_up(self) -> None:
        if self._supervisor is not None:
            self._loop.unregister(self._supervisor.fileno())
            self._supervisor.close()
            self._supervisor = None
            self._has_begun = False
            self._alone_since = self._loop.now

    # -- requests -----------------------------------------------------------------------------------------------

    def _begin(self, request: words.Begin, _: list[int]) -> words.Answer:
        if not self._is_filtered:
            if not request.filter_bpf:
                return _refuse(request.id, "a filter is missing: no filter, no egress")
            self._install_filter(request.filter_bpf)
            self._is_filtered = True
        self._means = self._state.means = self._means._replace(host_uri=request.host_uri)
        self._has_begun = True
        self._state.events.begin_again()
        return words.Begun(
            id=request.id,
            version=coworkd.__version__,
            pid=os.getpid(),
            sessions=tuple(self._sessions),
            degraded=tuple(self._degraded),
        )

    def _serve(self, request: words.Serve, fds: list[int]) -> words.Answer:
        if not 1 <= len(fds) <= _LISTENER_LIMIT:
            return _refuse(request.id, f"a session has 1 to {_LISTENER_LIMIT} listeners, not {len(fds)}")
        session = self._sessions.get(request.session)
        if session is None:
            if len(self._sessions) >= _SESSION_LIMIT:
                return _refuse(request.id, f"{_SESSION_LIMIT} sessions are served already")
            session = Session(self._state, request.session, request.egress)
        session.listen(fds)
        session.change(request.egress)
        self._sessions[request.session] = session
        return words.Done(id=request.id)

    def _change(self, request: words.Change, _: list[int]) -> words.Answer:
        session = self._sessions.get(request.session)
        if session is None:
            return _refuse(request.id, f"no session {request.session!r} is served")
        session.change(request.egress)
        closed = session.close_forbidden() if request.close_forbidden else 0
        return words.Done(id=request.id, closed=closed)

    def _stop(self, request: words.Stop, _: list[int]) -> words.Answer:
        session = self._sessions.pop(request.session, None)
        closed = 0
        if session is not None:
            closed = session.connection_count
            session.close("the session is closed")
        return words.Done(id=request.id, closed=closed)

    def _get_ca(self, request: words.GetCa, _: list[int]) -> words.Answer:
        try:
            return words.CaMade(id=request.id, pem=self._state.inspector.ca_pem())
        except ImportError as error:
            return _refuse(request.id, f"inspection is not available: {error}")

    def _trust_roots(self, request: words.TrustRoots, _: list[int]) -> words.Answer:
        self._state.inspector.trust(request.pem)
        self._means.parent_trust.trust(request.pem)
        return words.Done(id=request.id)

    def _count(self, request: words.Count, _: list[int]) -> words.Answer:
        state = self._state
        return words.Counts(
            id=request.id,
            sessions=len(self._sessions),
            connections=sum(session.connection_count for session in self._sessions.values()),
            connections_total=state.accepted_total,
            refused_total=state.refused_total,
            sent_bytes=state.sent_bytes,
            received_bytes=state.received_bytes,
            unrecorded=len(state.events),
            faults_total=state.faults.total,
        )

    def _ping(self, request: words.Ping, _: list[int]) -> words.Answer:
        return words.Done(id=request.id)

    def _recorded(self, request: words.Recorded, _: list[int]) -> None:
        self._state.events.recorded(request.through)

    def _quit(self, request: words.Quit, _: list[int]) -> words.Answer:
        self._close_sessions()
        self._loop.stop()
        return words.Done(id=request.id)


def _refuse(request_id: int, message: str) -> words.Refused:
    return words.Refused(id=request_id, message=message)
