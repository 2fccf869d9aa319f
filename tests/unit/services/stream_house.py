"""Streams over a socket pair, on a link whose writer is the test: what the tests of streams and forwards share."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, NotFound, SandboxSetupFailed
from coworkd.model.policy import LimitsRequest
from coworkd.model.ports import Frames
from coworkd.model.session import SessionView
from coworkd.model.stream import StreamEnding
from coworkd.services.streams import Streams
from coworkd.services.streams_flow import Flow
from coworkd.services.streams_socket import SocketEnd
from tests.unit.services.fake_launcher import FakeLauncher
from tests.unit.services.process_house import FakeLink, settle


class Data(NamedTuple):
    """One decoded `stream.data`."""

    stream: str
    offset: int
    data: bytes
    eof: bool
    error: str | None


def encode_data(
    stream: str, offset: int, data: bytes, eof: bool, error: CoworkError | None
) -> list[bytes | memoryview]:  # fmt: skip
    return [json.dumps([stream, offset, eof, error.message if error else None]).encode(), data]


class SocketLauncher(FakeLauncher):
    """Its sessions' network is the test's own. Without `ipv6` it has no sockets of that kind."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, bool]] = []
        self.ipv6 = True

    async def make_socket(self, session: str, *, ipv6: bool = False) -> int:
        await trio.lowlevel.checkpoint()
        self.asked.append((session, ipv6))
        if ipv6 and not self.ipv6:
            raise SandboxSetupFailed("no such family", errno=errno.EAFNOSUPPORT)
        return socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET).detach()


class Directory:
    """Implements `ports.SessionDirectory`; `names` are there."""

    def __init__(self) -> None:
        self.names = {"work"}

    async def open_for_command(self, name: str, /) -> SessionView:
        return await self.open(name)

    async def open(self, name: str, /) -> SessionView:
        await trio.lowlevel.checkpoint()
        if name not in self.names:
            raise NotFound(f"there is no session {name!r}")
        return SessionView(
            name=name,
            uid=1001,
            gid=1001,
            home=b"/sessions/work",
            profile="default",
            limits=LimitsRequest(),
            env={},
            folders=(),
        )


class StreamLink(FakeLink):
    """A link whose frames are `Data`."""

    def __init__(self, name: str = "link") -> None:
        super().__init__(name)
        self.closed = False

    def attach(self, source: Frames, /) -> None:
        if self.closed:
            source.detached()
        else:
            super().attach(source)

    def close(self) -> None:
        self.closed = True
        super().close()

    def take(self, frames: int = 1 << 20, limit_bytes: int = 65536) -> list[Data]:
        """At most `frames` frames, until no source has more."""
        got: list[Data] = []
        while len(got) < frames:
            for source in list(self.sources):
                frame = self.ask(source, limit_bytes)
                if frame is not None:
                    stream, offset, eof, error = json.loads(bytes(frame[0]))
                    got.append(Data(stream, offset, bytes(frame[1]), eof, error))
                    break
            else:
                break
        return got


class Rig:
    """Streams that are served, and how those opened here have ended."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.endings: list[StreamEnding] = []
        self.link = StreamLink()
        self.peers: list[socket.socket] = []

    async def ended(self, ending: StreamEnding) -> None:
        await trio.lowlevel.checkpoint()
        self.endings.append(ending)

    def open(self, link: StreamLink | None = None, *, window: int | None = None) -> tuple[Flow, socket.socket]:
        """A stream to the other end of a socket pair, which is closed with the house."""
        with self.streams.reserve(link or self.link) as place:
            ours, peer = socket.socketpair()
            peer.setblocking(False)
            self.peers.append(peer)
            return place.open(SocketEnd(ours), window=window, ended=self.ended), peer

    async def write(self, flow: Flow, offset: int, data: bytes, link: StreamLink | None = None) -> int:
        params = calls.StreamWrite(stream=flow.name, offset=offset, data=data)
        return (await self.streams.write(params, link or self.link)).offset

    async def close_write(self, flow: Flow, offset: int | None = None) -> None:
        await self.streams.close_write(calls.StreamCloseWrite(stream=flow.name, offset=offset), self.link)

    async def ack(self, flow: Flow, offset: int) -> None:
        await self.streams.ack(calls.StreamAck(stream=flow.name, offset=offset), self.link)

    async def close(self, flow: Flow, link: StreamLink | None = None) -> None:
        await self.streams.close(calls.StreamClose(stream=flow.name), link or self.link)


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    """Streams that are served, cancelled at the end."""
    made = Rig(Streams(encode=encode_data, **options))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(made.streams.serve)
            yield made
            made.link.close()
            await settle()
            nursery.cancel_scope.cancel()
    finally:
        for peer in made.peers:
            peer.close()


def fill(peer: socket.socket) -> int:
    """Write until there is no room; how much went."""
    count = 0
    while True:
        try:
            count += peer.send(bytes(65536))
        except BlockingIOError:
            return count
