"""A coworkd-egress inside the test's process, turned by the test: a fake supervisor, one session's listeners, servers on loopback.

The guard refuses loopback; here it is told to let 127.0.0.2 pass, where the servers are. Time is the test's.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from coworkd.egressd.faults import Faults
from coworkd.egressd.inspect import Inspecting
from coworkd.egressd.loop import IN
from coworkd.egressd.pump import Inspector
from coworkd.egressd.server import Egress
from coworkd.model.egress import (
    Answer,
    Begin,
    Count,
    Counts,
    EgressEvent,
    EgressLimits,
    EgressSettings,
    Recorded,
    Reply,
    Request,
    Serve,
    SessionEgress,
    Told,
)
from coworkd.netpolicy.guard import Guard
from coworkd.system import packet
from tests.unit.egressd.sockets import read_all, turn_until
from tests.unit.egressd.test_loop import Clock

SERVER_ADDRESS = "127.0.0.2"
FILTER = b"8 bytes."


def settings(*allowed: str, denied: tuple[str, ...] = ()) -> EgressSettings:
    return EgressSettings(source="test.json", allowed=allowed, denied=denied)


def session_egress(*allowed: str, upstream: str = "direct", limits: EgressLimits | None = None) -> SessionEgress:
    return SessionEgress(settings=(settings(*allowed),), upstream=upstream, limits=limits or EgressLimits())


def _expect_none(fault: str) -> None:
    """A fault of ours is contained where it matters, and none of a test that does not ask for it."""
    raise AssertionError(fault)


class Names:
    """Names to addresses; a name that is missing is not known, one in `hanging` is looked up until its event is set."""

    def __init__(self) -> None:
        self.hanging: dict[str, threading.Event] = {}
        self.known = {"server.example": [SERVER_ADDRESS], "loop.example": ["127.0.0.1"]}

    def __call__(self, host: str) -> list[str]:
        if host in self.hanging:
            assert self.hanging[host].wait(60)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.known[host]


class House:
    """See the module. `records` says whether events are acknowledged when they come."""

    def __init__(self, tmp: str, stack: ExitStack, *, inspector: Inspector | None = None) -> None:
        self._stack = stack
        self.clock = Clock()
        self.names = Names()
        self.path = os.path.join(tmp, "egress.sock")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(self.path)
        listener.listen(4)
        listener.setblocking(False)
        self.filters: list[bytes] = []
        self.egress = Egress(
            listener,
            linger_s=None,
            degraded=["no walls in a test"],
            install_filter=self.filters.append,
            inspector=inspector or Inspecting(),
            lookup=self.names,
            trusted_uid=os.geteuid(),
            clock=self.clock,
        )
        self.egress.state.faults = Faults(self.clock, _expect_none)
        self.egress.start()
        stack.callback(self.egress.close)
        self.records = True
        self.events: list[EgressEvent] = []
        self._answers: dict[int, Answer] = {}
        self._last_id = 0
        self.supervisor: socket.socket | None = None

    # -- the supervisor

    def connect(self) -> socket.socket:
        """Be a supervisor that says nothing yet."""
        supervisor = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        supervisor.connect(self.path)
        supervisor.setblocking(False)
        self.supervisor = supervisor
        return supervisor

    def begin(self, *, host_uri: str = "") -> Answer:
        self.connect()
        return self.ask(Begin(id=0, version="1", filter_bpf=FILTER, host_uri=host_uri))

    def leave(self) -> None:
        """The supervisor is gone."""
        assert self.supervisor is not None
        self.supervisor.close()
        self.supervisor = None
        self.turn(3)

    def send(self, request: Request, *fds: int) -> None:
        assert self.supervisor is not None
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(request), fds)
        self.supervisor.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)

    def ask(self, request: Request, *fds: int) -> Answer:
        self._last_id += 1
        number = self._last_id
        self.send(msgspec.structs.replace(request, id=number), *fds)
        self.until(lambda: number in self._answers)
        return self._answers.pop(number)

    def serve(self, egress: SessionEgress, *, session: str = "s") -> tuple[str, int]:
        """Serve a session on a loopback port; where that is."""
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self.ask(Serve(id=0, session=session, egress=egress), listener.fileno())
            address: tuple[str, int] = listener.getsockname()
            return address

    def acknowledge(self) -> None:
        """Everything that was told is durable."""
        self.send(Recorded(through=self.events[-1].seq))

    def count(self) -> Counts:
        counts = self.ask(Count(id=0))
        assert isinstance(counts, Counts)
        return counts

    def listen(self) -> None:
        """Take what coworkd-egress said."""
        while self.supervisor is not None:
            try:
                data, ancillary, flags, _ = self.supervisor.recvmsg(*packet.RECEIVE_ARGUMENTS)
            except BlockingIOError:
                return
            message, _ = packet.unpack(data, ancillary, flags)
            if not message:
                return
            reply = msgspec.msgpack.decode(message, type=Reply)
            if isinstance(reply, Told):
                self.events += reply.events
                if self.records:
                    self.send(Recorded(through=reply.events[-1].seq))
            else:
                self._answers[reply.id] = reply

    # -- time and turns

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.egress.loop.turn(0.005)
            self.listen()

    def until(self, condition: Callable[[], object], *, turns: int = 2000) -> None:
        def so() -> object:
            self.listen()
            return condition()

        turn_until(self.egress.loop, so, turns=turns)

    def pass_time(self, seconds: float) -> None:
        """Let time go by, with the sweeps of its end."""
        self.clock.now += seconds
        self.turn(2)
        self.clock.now += 0.3
        self.turn(2)

    # -- clients and servers

    def client(self, proxy: tuple[str, int]) -> Client:
        return Client(self, proxy)

    def server(self) -> Server:
        """A server at 127.0.0.2."""
        return Server(self, self._stack.enter_context(socket.create_server((SERVER_ADDRESS, 0), backlog=1024)))

    def unix_server(self, path: str) -> Server:
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(16)
        return Server(self, listener)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def opened(self, connection: socket.socket) -> None:
        self._stack.callback(connection.close)


class Client:
    """A client of the session's proxy."""

    def __init__(self, house: House, proxy: tuple[str, int]) -> None:
        self._house = house
        self.socket = socket.create_connection(proxy)
        self.socket.setblocking(False)
        house.opened(self.socket)
        self.got = b""
        self.ended = False

    def say(self, data: bytes) -> None:
        self.socket.send(data)

    def hear(self, *, until: bytes = b"", count: int = 0) -> bytes:
        """Take what comes, until that stands in it, or so much has come, or (with neither) its end."""

        def enough() -> bool:
            try:
                while not self.ended:
                    chunk = self.socket.recv(65536)
                    self.ended = not chunk
                    self.got += chunk
            except BlockingIOError:
                pass
            return self.ended or (until != b"" and until in self.got) or (count > 0 and len(self.got) >= count)

        self._house.until(enough)
        got, self.got = self.got, b""
        return got

    def connect(self, target: str) -> bytes:
        self.say(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        return self.hear(until=b"\r\n\r\n")

    def end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)


class Server:
    """Accepts one connection after another. `port` is that of a TCP server."""

    def __init__(self, house: House, listener: socket.socket) -> None:
        self._house = house
        self._listener = listener
        self._listener.setblocking(False)
        self.port: int = listener.getsockname()[1] if listener.family == socket.AF_INET else 0

    @property
    def is_asked(self) -> bool:
        """Whether a connection waits."""
        return bool(_readable(self._listener))

    def accept(self) -> Client:
        accepted: list[socket.socket] = []

        def came() -> bool:
            try:
                accepted.append(self._listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        self._house.until(came)
        connection = accepted[0]
        connection.setblocking(False)
        self._house.opened(connection)
        peer = object.__new__(Client)
        peer._house, peer.socket, peer.got, peer.ended = self._house, connection, b"", False
        return peer

    def accept_now(self) -> socket.socket:
        """One that is there already; the caller's."""
        return self._listener.accept()[0]

    def close(self) -> None:
        self._listener.close()


def _readable(connection: socket.socket) -> int:
    with select.epoll() as epoll:
        epoll.register(connection.fileno(), IN)
        return len(epoll.poll(0))


@contextmanager
def open_house(tmp: str, monkeypatch: pytest.MonkeyPatch, *, inspector: Inspector | None = None) -> Iterator[House]:
    real = Guard.judge

    def judge(self: Guard, address: str, *, is_own: bool, port: int | None = None) -> str | None:
        return None if address == SERVER_ADDRESS else real(self, address, is_own=is_own, port=port)

    monkeypatch.setattr(Guard, "judge", judge)
    with ExitStack() as stack:
        yield House(tmp, stack, inspector=inspector)


__all__ = ["Client", "House", "Names", "Server", "open_house", "read_all", "session_egress", "settings"]
