"""The way out for a guest without a network card: its connections to CID 2, port 5006, which arrive at a unix socket here.

    guest ─▶ CONNECT host:port HTTP/1.1      ─▶ rules ─ resolve ─ guard ─ dial ─┐
             Cowork-Session: NAME                                               │
    guest ◀─ 200, then bytes both ways       ◀──────────────── relay ◀──────────┘
          ◀─ 403 (refused), 502 (not reached), 504, 429, 503, 4xx (no such request), with a sentence

Rules
- The socket is 0600 from its first moment and is this user's alone. No root is needed.
- One request a connection, a CONNECT by the grammar of `coworkd.proxy.http_head`, with one Cowork-Session that names a session; what is
  sent behind it before the answer goes to the server.
- Bounded: connections in all, those of one session to half of them, bytes and seconds of a head, seconds to connect and to be idle.
  Past a bound a connection is answered 429 and closed; nobody waits for room.
- What a guest does ends its connection and nothing else.

Not here: which hosts a *session* may reach, which the guest decides (docs/egress.md). Sources: RFC 9110 section 9.3.6; DESIGN 10.
"""

from __future__ import annotations

import contextlib
import errno
import re
import resource
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trio

from coworkd.proxy.events import Refusal
from coworkd.proxy.http_head import HeadBuffer, HeadError, RequestHead, parse_request
from coworkd.proxy.refusals import compose_http_misuse, compose_http_refusal
from host_stub.egress_dial import Dialler, Lookup, Refused, Way, look_up
from host_stub.egress_records import EgressRecords
from host_stub.egress_relay import Relay
from host_stub.egress_rules import Decision, EgressOptions, EgressRules
from host_stub.logs import BoundedLog
from host_stub.words import Trouble

BACKLOG = 128
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_HEAD_LIMIT_BYTES = 16384
_RECEIVE_BYTES = 16384
_SESSION = re.compile(rb"[a-z][a-z0-9-]{0,31}")
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_SCARCE_PAUSE_S = 0.1
_OTHER_DESCRIPTORS = 128
"""Of this process, for all else it does."""


class EgressTiming(NamedTuple):
    """How long is waited for what."""

    head_s: float = 15.0
    connect_s: float = 15.0
    idle_s: float = 900.0
    farewell_s: float = 1.0
    """For a refused guest to take its answer."""


TIMING = EgressTiming()


class HostEgress:
    """Serves one machine's way out; made and run by its keeper."""

    def __init__(
        self,
        path: Path,
        options: EgressOptions,
        *,
        log: BoundedLog | None = None,
        timing: EgressTiming = TIMING,
        rules: EgressRules | None = None,
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path` is the back end's `{vsock}_5006`. `log` stays the caller's to close. Raises `Trouble` for options that are none."""
        self._path = path
        self._options = options
        self._timing = timing
        self._rules = rules or EgressRules(options)
        self._dialler = Dialler(self._rules, lookup=lookup)
        self._records = EgressRecords(log)
        self._clock = clock
        self.open: Counter[str] = Counter()
        """Session → its open connections."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled; then every connection is closed and the socket removed.

        Raises `Trouble` where the socket cannot be made.
        """
        listener = trio.socket.from_stdlib_socket(listen(self._path))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._records.serve)
                task_status.started()
                await self._accept(listener, nursery)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)
            await self._records.flush()

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        serving = trio.CapacityLimiter(fit_descriptors(self._options.connections))
        while True:
            try:
                accepted, _ = await listener.accept()
            except OSError as error:
                if error.errno not in _SCARCE and error.errno != errno.ECONNABORTED:
                    raise
                await trio.sleep(_SCARCE_PAUSE_S)
                continue
            stream = trio.SocketStream(accepted)
            if serving.available_tokens:
                # Taken here, for a task that waits for its turn would be one more of an unbounded queue.
                borrower = object()
                serving.acquire_on_behalf_of_nowait(borrower)
                nursery.start_soon(self._serve_one, stream, serving, borrower)
            else:
                self._records.tell(at=self._clock(), event="refused", kind="limit", reason="too many connections")
                accepted.close()

    async def _serve_one(self, stream: trio.SocketStream, serving: trio.CapacityLimiter, borrower: object) -> None:
        try:
            await self._talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the guest went away
        finally:
            serving.release_on_behalf_of(borrower)
            await trio.aclose_forcefully(stream)

    # -- one connection

    async def _talk(self, stream: trio.SocketStream) -> None:
        try:
            with trio.fail_after(self._timing.head_s):
                head, early = await _read_head(stream)
            session = _read_session(head)
        except trio.TooSlowError:
            await self._farewell(stream, compose_http_misuse(408, "the head of the request did not come in time"))
            return
        except HeadError as error:
            self._records.tell(at=self._clock(), event="refused", kind="misuse", reason=error.reason)
            await self._farewell(stream, compose_http_misuse(error.status, error.reason))
            return
        if head is None:
            return
        if self.open[session] >= max(1, self._options.connections // 2):
            await self._refuse(
                stream, session, head.host, head.port, Refusal(kind="limit", reason="too many connections")
            )
            return
        self.open[session] += 1
        try:
            await self._go_out(stream, session, head, early)
        finally:
            self.open[session] -= 1
            if not self.open[session]:
                del self.open[session]

    async def _go_out(self, stream: trio.SocketStream, session: str, head: RequestHead, early: bytes) -> None:
        decision = self._rules.decide(head.host, head.port, now=self._clock())
        if decision.refusal is not None:
            await self._refuse(stream, session, decision.host, decision.port, decision.refusal)
            return
        try:
            with trio.fail_after(self._timing.connect_s):
                way = await self._dialler.open_way(decision)
        except trio.TooSlowError:
            why = f"{decision.host} did not take the connection within {self._timing.connect_s:.0f} s"
            await self._refuse(stream, session, decision.host, decision.port, Refusal(kind="timeout", reason=why))
        except Refused as error:
            await self._refuse(stream, session, decision.host, decision.port, error.refusal)
        else:
            await self._join(stream, session, decision, way, early)

    async def _join(self, stream: trio.SocketStream, session: str, decision: Decision, way: Way, early: bytes) -> None:
        began = trio.current_time()
        about = {"session": session, "host": decision.host, "port": decision.port}
        via = "direct" if decision.route == "direct" else "parent"
        relay = Relay(stream, way.stream)
        self._records.tell(at=self._clock(), event="allowed", address=way.address or None, via=via, **about)
        try:
            with trio.move_on_after(self._timing.connect_s) as answering:
                await stream.send_all(ESTABLISHED + way.rest)
                if early:
                    await way.stream.send_all(early)
                relay.up_bytes, relay.down_bytes = len(early), len(way.rest)
            if answering.cancelled_caught:
                relay.ended = "what was sent first was not taken"
            else:
                await relay.run(idle_s=self._timing.idle_s)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(way.stream)
            self._records.tell(
                at=self._clock(),
                event="closed",
                up_bytes=relay.up_bytes,
                down_bytes=relay.down_bytes,
                seconds=round(trio.current_time() - began, 3),
                reason=relay.ended,
                **about,
            )

    async def _refuse(self, stream: trio.SocketStream, session: str, host: str, port: int, refusal: Refusal) -> None:
        self._records.tell(
            at=self._clock(),
            event="refused",
            session=session,
            host=host,
            port=port,
            kind=refusal.kind,
            reason=refusal.reason,
        )
        await self._farewell(stream, compose_http_refusal(refusal))

    async def _farewell(self, stream: trio.SocketStream, answer: bytes) -> None:
        """Send the answer and wait a moment for the guest to take it: a reset could overtake it."""
        with trio.move_on_after(self._timing.farewell_s):
            await stream.send_all(answer)
            await stream.send_eof()
            while await stream.receive_some(_RECEIVE_BYTES):
                pass


def fit_descriptors(connections: int) -> int:
    """How many connections this process has descriptors for, at most as many as asked; its soft limit is raised for them (macOS: 256)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower bound of its own behind the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, (soft - _OTHER_DESCRIPTORS) // 2))


def listen(path: Path) -> socket.socket:
    """A listening unix socket at `path`, in place of one that nobody listens on. Raises `Trouble`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    remedy = "stop what uses it; a bundle has one keeper"
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise Trouble("address_in_use", f"somebody listens on {path}", remedy=remedy)
            path.unlink()
        # The umask is this process's, and others of its threads make files too; so the directory is what is private until chmod.
        _check_private(path.parent)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Trouble("cannot_listen", f"cannot listen on {path}: {error.strerror or error}", remedy=remedy) from error
    except Trouble:
        listener.close()
        raise
    return listener


def _check_private(directory: Path) -> None:
    mode = directory.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise Trouble(
            "not_private",
            f"others may enter {directory}, where the sockets of a machine are",
            remedy=f"chmod 700 {directory}",
        )


async def _read_head(stream: trio.SocketStream) -> tuple[RequestHead | None, bytes]:
    """The request and what came behind it; None where the guest said nothing. Raises `HeadError`."""
    buffer = HeadBuffer(_HEAD_LIMIT_BYTES)
    while (raw := buffer.take_head()) is None:
        data = await stream.receive_some(_RECEIVE_BYTES)
        if not data:
            return None, b""
        buffer.feed(bytes(data))
    head = parse_request(raw)
    if not head.connect:
        raise HeadError(501, "only CONNECT is served here")
    return head, buffer.take_all()


def _read_session(head: RequestHead | None) -> str:
    """Who asks. Raises `HeadError`."""
    if head is None:
        return ""
    named = [value for name, value in head.fields if name.lower() == b"cowork-session"]
    if len(named) != 1 or not _SESSION.fullmatch(named[0]):
        raise HeadError(400, "a request has one Cowork-Session, which names a session")
    return named[0].decode("ascii")
