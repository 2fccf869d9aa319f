"""One suite over every kind of endpoint: what a link promises does not depend on what carries it.

unix is the real thing. vsock is its acceptor over a listener of unix sockets that claims to be CID 2 (no AF_VSOCK socket is
opened); hybrid is that behind a machine monitor's `CONNECT`; dial is a host that accepts; virtio is the real port code over
a pty, both ends resynchronised.
"""

from __future__ import annotations

import os
import pty
import socket
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from coworkd.model.calls import NoParams, ProcessName
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.link import HELLO_S
from coworkd.rpc.listen import UnixAcceptor, VsockAcceptor
from coworkd.rpc.methods import Method, MethodTable
from coworkd.rpc.serial import PortLinks
from coworkd.rpc.server import Server
from coworkd.rpc.transport import PortTransport, SocketTransport, Transport
from coworkd.wire.connection import Connection, Notification, Response
from coworkd.wire.endpoint import UnixEndpoint, VirtioEndpoint, VsockEndpoint, VsockPort
from coworkd.wire.hybrid import HybridAccept, HybridDial, compose_ok
from coworkd.wire.resync import HostResync
from tests.unit.rpc.fake_health import FakeHealth
from tests.unit.rpc.fakes import HELLO, FakeAudit, FakeSource

KINDS = ["unix", "vsock", "hybrid", "dial", "virtio"]
DEADLINE_S = 60
STREAM_BYTES = 3_000_000

Connect = Callable[[], Awaitable["Host"]]


class Host:
    """A host on a transport: calls, and what else came meanwhile."""

    def __init__(self, transport: Transport, received: bytes = b"") -> None:
        self.transport = transport
        self.connection = Connection("host")
        self._received = received

    async def next_event(self) -> Any:
        """The next event; None at the end of the stream."""
        while True:
            event = self.connection.next_event()
            if event is not None:
                return event
            data, self._received = self._received, b""
            data = data or await self.transport.receive(65_536)
            if not data:
                return None
            self.connection.receive_data(data)

    async def call(self, method: str, **params: Any) -> Any:
        _, data = self.connection.send_request(method, params)
        await self.transport.send([data])
        event = await self.next_event()
        assert isinstance(event, Response)
        return event.result if event.error is None else event.error

    async def greet(self) -> Any:
        answer = await self.call("hello", **HELLO)
        self.connection.greeted()
        return answer


class UnixAsVsock(trio.socket.SocketType):
    """A unix listener that gives vsock addresses, always the host's."""

    def __init__(self, path: Path) -> None:
        self._listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = path

    async def open(self) -> UnixAsVsock:
        await self._listener.bind(str(self._path))
        self._listener.listen(128)
        return self

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        accepted, _ = await self._listener.accept()
        return accepted, (2, 1024)

    def close(self) -> None:
        self._listener.close()


async def dial_unix(path: Path) -> SocketTransport:
    connecting = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await connecting.connect(str(path))
    return SocketTransport(connecting)


async def serve_unix(server: Server, nursery: trio.Nursery, directory: Path, stack: ExitStack) -> Connect:
    path = directory / "link"
    nursery.start_soon(server.serve_accepted, UnixAcceptor(UnixEndpoint(path=str(path))))

    async def connect() -> Host:
        return Host(await dial_unix(path))

    return connect


async def serve_vsock(server: Server, nursery: trio.Nursery, directory: Path, stack: ExitStack) -> Connect:
    path = directory / "link"
    listener = await UnixAsVsock(path).open()
    nursery.start_soon(server.serve_accepted, VsockAcceptor(VsockPort(port=5005), listener))

    async def connect() -> Host:
        return Host(await dial_unix(path))

    return connect


async def serve_hybrid(server: Server, nursery: trio.Nursery, directory: Path, stack: ExitStack) -> Connect:
    await serve_vsock(server, nursery, directory, stack)
    monitor = stack.enter_context(trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    await monitor.bind(str(directory / "monitor"))
    monitor.listen(16)

    async def relay(source: Transport, target: Transport, first: bytes = b"") -> None:
        try:
            with suppress(OSError, trio.ClosedResourceError):  # either side closing is how a relay ends
                data = first or await source.receive(65_536)
                while data:
                    await target.send([data])
                    data = await source.receive(65_536)
        finally:
            target.close()
            source.close()

    async def monitor_one(client: SocketTransport) -> None:
        accept = HybridAccept()
        while (asked := accept.feed(await client.receive(5))) is None:
            pass
        assert asked[0] == 5005
        guest = await dial_unix(directory / "link")
        await client.send([compose_ok(1024)])
        async with trio.open_nursery() as both:
            both.start_soon(relay, guest, client)
            both.start_soon(relay, client, guest, asked[1])

    async def monitor_all() -> None:
        while True:
            accepted, _ = await monitor.accept()
            nursery.start_soon(monitor_one, SocketTransport(accepted))

    async def connect() -> Host:
        transport = await dial_unix(directory / "monitor")
        dial = HybridDial(5005)
        await transport.send([dial.request])
        while (rest := dial.feed(await transport.receive(65_536))) is None:
            pass
        return Host(transport, rest)

    nursery.start_soon(monitor_all)
    return connect


async def serve_dial(server: Server, nursery: trio.Nursery, directory: Path, stack: ExitStack) -> Connect:
    listener = stack.enter_context(trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    await listener.bind(str(directory / "host"))
    listener.listen(1)

    async def dial(endpoint: VsockEndpoint) -> Transport:
        return await dial_unix(directory / "host")

    async def connect() -> Host:
        accepted, _ = await listener.accept()
        return Host(SocketTransport(accepted))

    nursery.start_soon(server.serve_dialled, VsockEndpoint(cid=2, port=5007), dial)
    return connect


async def serve_virtio(server: Server, nursery: trio.Nursery, directory: Path, stack: ExitStack) -> Connect:
    host_fd, guest_fd = pty.openpty()
    tty.setraw(guest_fd)
    port = PortTransport(host_fd)
    stack.callback(port.close)
    stack.callback(os.close, guest_fd)
    nursery.start_soon(
        server.serve_port, PortLinks(VirtioEndpoint(path=os.ttyname(guest_fd)), lambda path: os.dup(guest_fd))
    )

    async def connect() -> Host:
        resync = HostResync(os.urandom(16))
        first = b""
        while not resync.synced:
            await port.send([resync.mark])
            with trio.move_on_after(0.3):
                while not resync.synced:
                    first = resync.feed(await port.receive(65_536))
        return Host(_Resynced(port, resync), first)

    return connect


class _Resynced:
    """The host's use of the port; closing it leaves the port open, as a host that goes away does."""

    def __init__(self, port: Transport, resync: HostResync) -> None:
        self._port = port
        self._resync = resync

    async def receive(self, limit_bytes: int, /) -> bytes:
        while not (data := self._resync.feed(await self._port.receive(limit_bytes))):
            pass
        return data

    async def send(self, buffers: Any, /) -> None:
        await self._port.send(buffers)

    def send_nowait(self, frame: bytes, /) -> int:
        return self._port.send_nowait(frame)

    def close(self) -> None:
        pass


SERVE = {"unix": serve_unix, "vsock": serve_vsock, "hybrid": serve_hybrid, "dial": serve_dial, "virtio": serve_virtio}


async def echo(params: ProcessName, link: LinkPort) -> dict[str, Any]:
    return {"process": params.process}


async def stream(params: NoParams, link: LinkPort) -> dict[str, Any]:
    link.attach(FakeSource(STREAM_BYTES))
    return {}


METHODS = [
    Method(name="echo", params=ProcessName, handler=echo),
    Method(name="stream", params=NoParams, handler=stream),
]


@asynccontextmanager
async def served(kind: str, directory: Path) -> AsyncIterator[tuple[Server, Connect]]:
    server = Server(MethodTable([*link_methods(FakeHealth(), token=None), *METHODS]), FakeAudit())
    with trio.fail_after(DEADLINE_S), ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield server, await SERVE[kind](server, nursery, directory, stack)
            nursery.cancel_scope.cancel()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_hello_and_calls_are_answered(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (server, connect):
            host = await connect()
            assert (await host.greet())["protocol"] == 1
            assert (await host.call("echo", process="p")) == {"process": "p"}
            assert server.links == 1
            host.transport.close()

    trio.run(main)


def test_large_messages_travel_both_ways(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (_, connect):
            host = await connect()
            await host.greet()
            text = "x" * 1_000_000
            async with trio.open_nursery() as nursery:
                _, data = host.connection.send_request("echo", {"process": text})
                nursery.start_soon(lambda: host.transport.send([data]))
                event = await host.next_event()
            assert event.result == {"process": text}
            host.transport.close()

    trio.run(main)


def test_a_stream_arrives_whole_and_calls_are_answered_meanwhile(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (_, connect):
            host = await connect()
            await host.greet()
            assert await host.call("stream") == {}
            _, data = host.connection.send_request("ping", {})
            await host.transport.send([data])
            offset, answered_at = 0, None
            while offset < STREAM_BYTES or answered_at is None:
                event = await host.next_event()
                if isinstance(event, Notification):
                    assert event.params["offset"] == offset
                    offset += len(event.params["data"])
                else:
                    answered_at = offset
            assert answered_at < STREAM_BYTES
            host.transport.close()

    trio.run(main)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"\x94\x00\x01\xa1m\xdd\xff\xff\xff\xff", b"\x94" * 100],
    ids=["http", "4-gib", "deep"],
)
def test_a_breach_is_told_and_the_next_link_is_good(kind: str, data: bytes, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (_, connect):
            host = await connect()
            await host.greet()
            await host.transport.send([data])
            event = await host.next_event()
            assert (event.method, event.params["code"] in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")) == (
                "link.error",
                True,
            )
            host.transport.close()
            again = await connect()
            await again.greet()
            assert await again.call("echo", process="q") == {"process": "q"}
            again.transport.close()

    trio.run(main)


@pytest.mark.parametrize("kind", ["unix", "vsock", "hybrid"])
def test_silent_links_delay_nobody(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (_, connect):
            silent = [await connect() for _ in range(200 if kind != "hybrid" else 50)]
            began = trio.current_time()
            host = await connect()
            await host.greet()
            assert trio.current_time() - began < HELLO_S / 2
            for each in (*silent, host):
                each.transport.close()

    trio.run(main)


@pytest.mark.parametrize("kind", ["unix", "vsock", "hybrid", "dial"])
def test_a_host_that_vanishes_leaves_nothing(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path) as (server, connect):
            host = await connect()
            await host.greet()
            await host.call("stream")
            host.transport.close()
            while server.links:
                await trio.sleep(0.01)
            again = await connect()
            await again.greet()
            again.transport.close()

    trio.run(main)
