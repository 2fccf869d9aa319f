"""`forward.open`: a stream of the host's to a port that a session listens on.

Order: judge → a place among the link's streams → the session is open → audit → a socket of the session's network → connect.

Rules
- The port is the session's own: the socket is made in its network namespace, and connected to 127.0.0.1, then ::1.
- Nobody listening is `InvalidState` with `details.stage` `connect`; a server that does not accept within `CONNECT_S` likewise.
- The end is recorded with the bytes of both directions. `end_session` cuts what still stands of a session that is no more.
"""

from __future__ import annotations

import logging
import socket
from functools import partial

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, Unavailable
from coworkd.model.ports import AuditPort, LauncherPort, LinkPort, SessionDirectory
from coworkd.model.stream import StreamEnding
from coworkd.services.streams import Place, Streams, check_window
from coworkd.services.streams_flow import Flow
from coworkd.services.streams_socket import SocketEnd, connect

CONNECT_S = 10.0
_LOOPBACKS = ((False, "127.0.0.1"), (True, "::1"))
_log = logging.getLogger("coworkd.forward")


class Forwards:
    """All forwards of this guest."""

    def __init__(
        self, *, sessions: SessionDirectory, launcher: LauncherPort, audit: AuditPort, streams: Streams
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._launcher = launcher
        self._audit = audit
        self._streams = streams
        self._flows: dict[str, dict[str, Flow]] = {}
        """Session → the streams into it that stand."""

    async def open(self, params: calls.ForwardOpen, link: LinkPort) -> calls.StreamOpened:
        """Raises `InvalidParams`, `NotFound`, `InvalidState` (nobody listens), `LimitExceeded`, `Unavailable`, `DiskFailed`."""
        check_port(params.port)
        check_window(params.window)
        with self._streams.reserve(link) as place:
            session = (await self._sessions.open(params.session)).name
            about = {"session": session, "port": params.port, "stream": place.name, "link": link.name}
            await self._audit.record("forward.open", about)
            try:
                connected = await connect_port(self._launcher, session, params.port)
                return self._begin(place, connected, params, session, about)
            except BaseException as error:
                with trio.CancelScope(shield=True):
                    await self._audit.record("forward.close", {**about, "reason": _reason(error)})
                raise

    def end_session(self, session: str) -> None:
        """The session's namespaces are gone: what leads into them is too."""
        for flow in list(self._flows.get(session, {}).values()):
            flow.lose(Unavailable(f"session {session} was closed", session=session))

    def _begin(
        self, place: Place, connected: socket.socket, params: calls.ForwardOpen, session: str, about: dict[str, object]
    ) -> calls.StreamOpened:
        flow = place.open(
            SocketEnd(connected), window=params.window, ended=partial(self._record_end, session, place.name, about)
        )
        self._flows.setdefault(session, {})[place.name] = flow
        return calls.StreamOpened(stream=place.name)

    async def _record_end(self, session: str, name: str, about: dict[str, object], ending: StreamEnding) -> None:
        flows = self._flows.get(session, {})
        flows.pop(name, None)
        if not flows:
            self._flows.pop(session, None)
        await self._audit.record(
            "forward.close",
            {
                **about,
                "reason": _reason(ending.error) if ending.error else "closed",
                "sent_bytes": ending.sent_bytes,
                "received_bytes": ending.received_bytes,
                "took_s": ending.took_s,
            },
        )


def check_port(port: int) -> None:
    """Raise `InvalidParams` unless it is a port one can connect to."""
    if not 0 < port <= 65_535:
        raise InvalidParams(f"port {port} is no port: 1 to 65535", key="port")


async def connect_port(launcher: LauncherPort, session: str, port: int) -> socket.socket:
    """A socket connected to `port` on the loopback of an open session; the caller's to close. Raises `InvalidState`."""
    refusal: OSError | CoworkError | None = None
    for ipv6, address in _LOOPBACKS:
        try:
            return await _connect(await launcher.make_socket(session, ipv6=ipv6), address, port)
        except OSError as error:
            refusal = refusal or error
        except CoworkError:
            # A guest without IPv6 has no socket for the second try; what the first one met is what counts.
            if refusal is None:
                raise
    number = refusal.errno if isinstance(refusal, OSError) else None
    what = f"did not accept within {CONNECT_S:g} s" if isinstance(refusal, TimeoutError) else "is listened on by nobody"
    raise InvalidState(
        f"port {port} of session {session} {what}: start a server there, on 127.0.0.1 or ::1, then try again",
        stage="connect",
        session=session,
        port=port,
        errno=number,
    ) from refusal


async def _connect(fd: int, address: str, port: int) -> socket.socket:
    fresh = socket.socket(fileno=fd)
    try:
        fresh.setblocking(False)
        fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.fail_after(CONNECT_S):
            await connect(fresh, (address, port))
    except trio.TooSlowError:
        fresh.close()
        raise TimeoutError("the port did not accept") from None
    except BaseException:
        fresh.close()
        raise
    return fresh


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, CoworkError) else type(error).__name__
