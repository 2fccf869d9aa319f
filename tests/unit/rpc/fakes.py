"""Fakes for the tests of `rpc`: a transport in memory, a host that speaks on it, a server around it, sources of data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from coworkd.model.calls import Mutating, NoParams, Params
from coworkd.model.errors import DiskFailed
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.link import Link
from coworkd.rpc.methods import Method, MethodTable
from coworkd.rpc.server import Server
from coworkd.wire.connection import Connection, Notification, Response
from coworkd.wire.fault import parse_fault
from coworkd.wire.stream import StreamEvents
from tests.unit.rpc.fake_health import FakeHealth

HELLO: dict[str, Any] = {"client": "test", "protocol": {"min": 1, "max": 1}}


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run with a clock that jumps when everybody waits: deadlines pass at once, and nothing sleeps."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class FakeTransport:
    """A transport whose other end is this object too. While `stalled`, nothing more is taken from the writer."""

    def __init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[bytes](10_000)
        self.sends: list[list[bytes | memoryview]] = []
        self.sent = bytearray()
        self.closed = False
        self.lost = False
        self._moved = trio.Event()
        self._going = trio.Event()
        self._going.set()

    async def receive(self, limit_bytes: int, /) -> bytes:
        if self.lost:
            raise trio.BrokenResourceError("reset by the test")
        try:
            return await self._take.receive()
        except trio.EndOfChannel:
            return b""

    async def send(self, buffers: Sequence[bytes | memoryview], /) -> None:
        await trio.lowlevel.checkpoint()
        await self._going.wait()
        if self.lost:
            raise trio.BrokenResourceError("reset by the test")
        self.sends.append(list(buffers))
        self.sent += b"".join(buffers)
        self._move()

    def send_nowait(self, frame: bytes, /) -> int:
        """Takes nothing at once: what goes out, and in which calls, is seen in `sends`."""
        return 0

    def close(self) -> None:
        self.closed = True
        self._move()

    def feed(self, data: bytes) -> None:
        self._give.send_nowait(data)

    def feed_eof(self) -> None:
        self._give.close()

    def stall(self) -> None:
        self._going = trio.Event()

    def go_on(self) -> None:
        self._going.set()

    def lose(self) -> None:
        """The peer resets the connection."""
        self.lost = True
        self._going.set()
        self._give.close()

    async def wait_moved(self) -> None:
        await self._moved.wait()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()


class FakeHost:
    """The host of one fake transport."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.connection = Connection("host")
        self._parsed = 0
        self.kept: list[Response | Notification] = []

    def send(self, method: str, **params: Any) -> int:
        request_id, data = self.connection.send_request(method, params)
        self.transport.feed(data)
        return request_id

    async def next_event(self) -> Response | Notification | None:
        """The next event; None once the guest closed."""
        while True:
            if self.kept:
                return self.kept.pop(0)
            event = self.connection.next_event()
            if event is not None:
                assert isinstance(event, (Response, Notification))
                return event
            fresh = bytes(self.transport.sent[self._parsed :])
            self._parsed += len(fresh)
            if fresh:
                self.connection.receive_data(fresh)
            elif self.transport.closed:
                return None
            else:
                await self.transport.wait_moved()

    async def answer(self, request_id: int) -> dict[str, Any]:
        """The result of a request, or raise its error. Other events are kept for `next_event`."""
        passed: list[Response | Notification] = []
        while True:
            event = await self.next_event()
            assert event is not None, "the guest closed before it answered"
            if isinstance(event, Response) and event.id == request_id:
                break
            passed.append(event)
        self.kept = passed + self.kept
        if event.error is not None:
            raise parse_fault(event.error)
        assert event.result is not None
        return event.result

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.answer(self.send(method, **params))

    async def greet(self) -> dict[str, Any]:
        answer = await self.call("hello", **HELLO)
        self.connection.greeted()
        return answer

    async def closing(self) -> Notification:
        """The `link.error` that must come before the guest closes, which it must do then."""
        last: Any = None
        while (event := await self.next_event()) is not None:
            last = event
        assert isinstance(last, Notification)
        assert last.method == "link.error"
        return last


class FakeAudit:
    """Keeps records; `broken` makes it refuse them."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.broken = False

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise DiskFailed("the disk is full")
        self.records.append((kind, dict(fields)))


class Bench:
    """A server that runs, and hosts on it."""

    def __init__(self, server: Server, audit: FakeAudit, nursery: trio.Nursery) -> None:
        self.server = server
        self.audit = audit
        self.nursery = nursery
        self.links: list[Link] = []

    def connect(self) -> FakeHost:
        transport = FakeTransport()
        link = self.server._make_link(transport, "fake", "test")
        self.links.append(link)
        self.server._start(link, "fake:///", lambda: None)
        return FakeHost(transport)

    async def greeted(self) -> FakeHost:
        host = self.connect()
        await host.greet()
        return host


@asynccontextmanager
async def bench(methods: Iterable[Method] = (), *, token: str | None = None) -> AsyncIterator[Bench]:
    """A server with `hello`, `ping` and `methods`; everything is cancelled at the end."""
    audit = FakeAudit()
    server = Server(MethodTable([*link_methods(FakeHealth(), token=token), *methods]), audit)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield Bench(server, audit, nursery)
        nursery.cancel_scope.cancel()


def plain(name: str, handle: Callable[[LinkPort], Awaitable[Any]], params: type[Params] = NoParams) -> Method:
    """A method whose handler looks at nothing but its link."""

    async def handler(given: Params, link: LinkPort) -> Any:
        return await handle(link)

    return Method(name=name, params=params, handler=handler)


def mutating(name: str, handle: Callable[[LinkPort], Awaitable[Any]]) -> Method:
    """A method that takes `request_id`."""
    return plain(name, handle, Mutating)


class FakeSource:
    """Gives `total_bytes` of zeros as frames of one stream."""

    def __init__(self, total_bytes: int, stream: str = "stdout") -> None:
        self._events = StreamEvents("process.output", {"process": "p", "stream": stream})
        self._offset = 0
        self.left = total_bytes
        self.detachments = 0
        self.asked: list[int] = []

    def next_frame(self, limit_bytes: int, /) -> list[bytes | memoryview] | None:
        self.asked.append(limit_bytes)
        size = min(limit_bytes, self.left)
        if not size:
            return None
        self.left -= size
        frame = self._events.frame(self._offset, memoryview(bytes(size)))
        self._offset += size
        return frame

    def detached(self) -> None:
        self.detachments += 1


class BadSource(FakeSource):
    """Raises at its first frame."""

    def next_frame(self, limit_bytes: int, /) -> list[bytes | memoryview] | None:
        raise RuntimeError("bad source")
