"""`services.forwards`: into a port of a session, recorded at both ends."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import DiskFailed, InvalidParams, InvalidState, LimitExceeded, NotFound
from coworkd.services.forwards import CONNECT_S, Forwards
from tests.unit.services.process_house import FakeAudit, in_trio, jump, open_fds, settle
from tests.unit.services.stream_house import Data, Directory, Rig, SocketLauncher, StreamLink, rig


class House:
    """Forwards, a server inside the session, and what was recorded."""

    def __init__(self, streams: Rig) -> None:
        self.audit = FakeAudit()
        self.launcher = SocketLauncher()
        self.rig = streams
        self.link = streams.link
        self.forwards = Forwards(
            sessions=Directory(), launcher=self.launcher, audit=self.audit, streams=streams.streams
        )
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]

    async def open(self, *, link: StreamLink | None = None, **fields: Any) -> str:
        params = calls.ForwardOpen(**{"session": "work", "port": self.port, **fields})
        return (await self.forwards.open(params, link or self.link)).stream


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with rig() as streams:
        made = House(streams)
        try:
            yield made
        finally:
            made.server.close()


@in_trio
async def test_a_forward_is_recorded_before_and_with_its_bytes_after() -> None:
    before = open_fds()
    async with house() as made:
        stream = await made.open()
        assert made.audit.records == [
            ("forward.open", {"session": "work", "port": made.port, "stream": stream, "link": "link"})
        ]
        peer, _ = made.server.accept()
        with peer:
            peer.send(b"hello")
            await settle()
            assert made.link.take() == [Data(stream, 0, b"hello", False, None)]
        await made.rig.streams.close(calls.StreamClose(stream=stream), made.link)
        await settle()
        told = made.audit.fields("forward.close")
        assert (told["received_bytes"], told["sent_bytes"], told["reason"]) == (5, 0, "closed")
        assert (told["session"], told["stream"], told["link"]) == ("work", stream, "link")
    assert open_fds() == before


@in_trio
@pytest.mark.parametrize("port", [0, -1, 65_536, 1 << 40])
async def test_what_is_no_port_is_refused_before_anything_is_done(port: int) -> None:
    async with house() as made:
        with pytest.raises(InvalidParams) as caught:
            await made.open(port=port)
        assert caught.value.details["key"] == "port"
        assert made.audit.records == []
        assert made.launcher.asked == []


@in_trio
async def test_a_bad_window_is_refused() -> None:
    async with house() as made:
        with pytest.raises(InvalidParams):
            await made.open(window=0)


@in_trio
async def test_an_unknown_session_is_not_found_and_takes_no_place() -> None:
    async with house() as made:
        for _ in range(300):
            with pytest.raises(NotFound):
                await made.open(session="nobody")
        await made.open()


@in_trio
async def test_nobody_listening_is_said_with_what_to_do_and_recorded() -> None:
    before = open_fds()
    async with house() as made:
        made.server.close()
        with pytest.raises(InvalidState, match="listened on by nobody: start a server") as caught:
            await made.open()
        details = caught.value.details
        assert (details["stage"], details["errno"], details["port"]) == ("connect", errno.ECONNREFUSED, made.port)
        assert made.launcher.asked == [("work", False), ("work", True)]
        assert made.audit.kinds == ["forward.open", "forward.close"]
        assert "nobody" in made.audit.fields("forward.close")["reason"]
    assert open_fds() == before


@in_trio
async def test_a_guest_without_ipv6_says_the_same() -> None:
    async with house() as made:
        made.server.close()
        made.launcher.ipv6 = False
        with pytest.raises(InvalidState, match="by nobody"):
            await made.open()


@in_trio
async def test_a_server_on_the_ipv6_loopback_is_found() -> None:
    async with house() as made:
        made.server.close()
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            await made.open(port=server.getsockname()[1])
            server.accept()[0].close()


@in_trio
async def test_a_server_that_does_not_accept_is_given_up() -> None:
    before = open_fds()
    async with house() as made:
        made.server.close()
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        waiting = [socket.socket() for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(InvalidState, match="did not accept"):
                    await made.open(port=full.getsockname()[1])

            nursery.start_soon(ask)
            await settle()
            jump(CONNECT_S)
        for one in (*waiting, full):
            one.close()
    assert open_fds() == before


@in_trio
async def test_what_cannot_be_recorded_is_not_done() -> None:
    async with house() as made:
        made.audit.full.add("forward.open")
        with pytest.raises(DiskFailed):
            await made.open()
        assert made.launcher.asked == []


@in_trio
async def test_the_257th_of_a_link_is_refused_before_the_server_sees_it() -> None:
    async with house() as made:
        made.rig.streams._limit = 1
        await made.open()
        with pytest.raises(LimitExceeded):
            await made.open()
        assert made.audit.kinds == ["forward.open"]


@in_trio
async def test_a_session_that_closes_takes_its_forwards_along() -> None:
    async with house() as made:
        stream = await made.open()
        peer, _ = made.server.accept()
        made.forwards.end_session("other")
        made.forwards.end_session("work")
        (told,) = made.link.take()
        assert told.eof
        assert told.error == "session work was closed"
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        peer.close()
        await settle()
        assert made.audit.fields("forward.close")["reason"] == "session work was closed"
        with pytest.raises(InvalidState, match="session work was closed"):
            await made.rig.streams.write(calls.StreamWrite(stream=stream, offset=0, data=b"x"), made.link)


@in_trio
async def test_a_link_that_goes_while_it_connects_leaves_nothing_but_its_records() -> None:
    before = open_fds()
    async with house() as made:
        async with trio.open_nursery() as nursery:
            made.audit.record = closing(made)  # type: ignore[method-assign]
            nursery.start_soon(ask_in_vain, made)
        await settle()
        assert made.rig.streams.count == 0
        assert [kind for kind, _ in made.audit.records] == ["forward.open", "forward.close"]
    assert open_fds() == before


def closing(made: House) -> Any:
    record = made.audit.record

    async def first_close(kind: str, fields: Any, /) -> None:
        if kind == "forward.open":
            made.link.close()
        await record(kind, fields)

    return first_close


async def ask_in_vain(made: House) -> None:
    with pytest.raises(Exception, match="link"):
        await made.open()
