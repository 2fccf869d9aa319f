"""A real server over the real process service, whose links are in memory and are cut at a byte.

Commands are played: `cat` gives back what it is given. Time stands still but for what nobody can do without it, so a thousand
conversations take seconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import trio
import trio.testing

from coworkd.client.aio import AsyncClient
from coworkd.model.errors import Unavailable
from coworkd.model.process import StreamName
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.handlers.process import process_methods
from coworkd.rpc.link import Link
from coworkd.rpc.methods import MethodTable
from coworkd.rpc.server import Server
from coworkd.rpc.transport import Buffer
from coworkd.services.process_limits import ProcessLimits
from coworkd.services.processes import Processes
from coworkd.wire.connection import compose_notification
from coworkd.wire.stream import output_events
from tests.conformance.rpc_house import Health
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import NOW, House, open_fds

Way = Literal["to_guest", "to_host"]


class Cut:
    """Breaks a link behind its `at`th byte of one way; None never does. `seen` counts the bytes of both ways.

    A link that is `full` takes no byte more on its way to the host, as where that does not read.
    """

    def __init__(self, way: Way = "to_guest", at: int | None = None) -> None:
        self.way = way
        self.at = at
        self.full = False
        self.seen: dict[Way, int] = {"to_guest": 0, "to_host": 0}
        self.broken = trio.Event()

    def pass_through(self, way: Way, data: bytes) -> bytes:
        """What of `data` still gets through."""
        left = len(data)
        if self.at is not None and way == self.way:
            left = min(left, self.at - self.seen[way])
        self.seen[way] += left
        return data[:left]

    @property
    def due(self) -> bool:
        return self.at is not None and self.seen[self.way] >= self.at


class CutStream(trio.abc.Stream):
    """One end of a link; both ends break at once."""

    def __init__(self, inner: trio.abc.Stream, cut: Cut, way: Way) -> None:
        self._inner = inner
        self._cut = cut
        self._way = way

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._cut.broken.is_set():
            raise trio.BrokenResourceError("the link was cut")
        if self._way == "to_host" and self._cut.full:
            await self._cut.broken.wait()
            raise trio.BrokenResourceError("the link was cut")
        await self._inner.send_all(self._cut.pass_through(self._way, bytes(data)))
        if self._cut.due:
            self._cut.broken.set()
            raise trio.BrokenResourceError("the link was cut")

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        got: list[bytes | bytearray] = []

        async def receive(scope: trio.CancelScope) -> None:
            got.append(await self._inner.receive_some(max_bytes))
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, nursery.cancel_scope)
            await self._cut.broken.wait()
            # What was on its way arrives; then there is nothing more.
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
        if got:
            return got[0]
        raise trio.BrokenResourceError("the link was cut")

    async def aclose(self) -> None:
        await self._inner.aclose()


class StreamTransport:
    """A trio stream as a `Transport`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self, limit_bytes: int, /) -> bytes:
        return bytes(await self._stream.receive_some(limit_bytes))

    async def send(self, buffers: Sequence[Buffer], /) -> None:
        await self._stream.send_all(b"".join(buffers))

    def send_nowait(self, frame: bytes, /) -> int:
        return 0

    def close(self) -> None:
        inner = self._stream._inner if isinstance(self._stream, CutStream) else self._stream
        assert isinstance(inner, trio.StapledStream)
        inner.send_stream.close()
        inner.receive_stream.close()


def encode_output(process: str, stream: StreamName, offset: int, data: bytes, eof: bool) -> list[bytes | memoryview]:
    return output_events(process, stream).frame(offset, data, eof=eof)


class WireHouse(House):
    """The process service with the encoding of the wire."""

    def make(self) -> Processes:
        return Processes(
            launcher=self.launcher,
            sessions=self.sessions,
            policies=self.policies,
            audit=self.audit,
            events=self.events,
            compose=lambda spec, session, policy: self.compose(spec, session, policy),
            encode_output=encode_output,
            encode_notification=lambda method, params: [compose_notification(method, params)],
            limits=self.limits,
            clock=lambda: NOW,
        )


class Guest:
    """A server with commands that are played; `dial` is a host's way in."""

    def __init__(self, house: WireHouse, server: Server, nursery: trio.Nursery) -> None:
        self.house = house
        self.inputs: dict[str, bytes] = {}
        """Process → all of stdin that it was given."""
        self.links = 0
        self.played = True
        """Whether commands that are started are played; else they read nothing."""
        self._server = server
        self._nursery = nursery
        house.launcher.script = self._begin
        house.processes.callers.attach(functools.partial(server.dispatcher.asked_again, "process.run"))

    async def dial(self, cut: Cut | None = None) -> AsyncClient:
        """A client that has said hello; a link cut before that is `Unavailable`."""
        cut = cut or Cut()
        ours, theirs = trio.testing.memory_stream_pair()
        self.links += 1
        link = self._server._make_link(StreamTransport(CutStream(theirs, cut, "to_host")), "memory", "here")
        self._nursery.start_soon(self._run, link)
        client = AsyncClient(CutStream(ours, cut, "to_guest"))
        try:
            await client.greet("test")
        except Unavailable:
            await client.aclose()
            raise
        return client

    async def _run(self, link: Link) -> None:
        await self._server._run_link(link, "here", lambda: None)

    def _begin(self, command: FakeCommand) -> None:
        command.start()
        if command.request.stdin and self.played:
            self._nursery.start_soon(self._play_cat, command, command.leak("stdin"))

    async def _play_cat(self, command: FakeCommand, stdin: int) -> None:
        name = command.request.process
        self.inputs[name] = b""
        try:
            while command.living:
                await trio.lowlevel.wait_readable(stdin)
                data = os.read(stdin, 65536)
                if not data:
                    command.exit(code=0)
                    return
                self.inputs[name] += data
                command.write(data)
        finally:
            os.close(stdin)


@contextlib.asynccontextmanager
async def open_guest() -> AsyncIterator[Guest]:
    """A guest that is served until the end of the block, and leaves no descriptor."""
    before = open_fds()
    house = WireHouse(ProcessLimits())
    methods = MethodTable((*link_methods(Health(), token=None), *process_methods(house.processes)))
    async with trio.open_nursery() as nursery:
        await house.open(nursery)
        server = Server(methods, house.audit)
        await nursery.start(server.run)
        yield Guest(house, server, nursery)
        await house.close()
        nursery.cancel_scope.cancel()
    house.launcher.close()
    assert open_fds() == before


def keep(client: AsyncClient, guest: Guest, limit_s: float = 60) -> None:
    """Let `client` make its link again, uncut."""
    client.keep(functools.partial(guest.dial), limit_s)
