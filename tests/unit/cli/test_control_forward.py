"""`coworkctl forward`: local connections, each a stream."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from coworkd.cli import control_forward, control_link
from coworkd.cli.control import main
from coworkd.cli.control_forward import Forwarder, forward, open_listener
from coworkd.client.aio import AsyncClient
from coworkd.model.errors import AlreadyExists, InvalidParams, Unavailable
from tests.unit.cli.conftest import SESSION
from tests.unit.client.conftest import FakeGuest, Fault
from tests.unit.client.stream_guest import StreamGuest

Connect = Callable[[], Awaitable[trio.SocketStream]]


@pytest.fixture
def streams(guest: FakeGuest) -> StreamGuest:
    """The guest of `conftest`, with streams."""
    guest.answers["session.get"] = lambda _: {"session": SESSION}
    return StreamGuest(guest)


async def client_of(guest: FakeGuest) -> AsyncClient:
    client = AsyncClient(trio.SocketStream(trio.socket.from_stdlib_socket(guest.host.dup())))
    await client.greet("test")
    return client


def run(streams: StreamGuest, body: Callable[[Connect], Awaitable[None]]) -> None:
    """`body` gets a way to connect to a forwarder that serves."""

    async def start() -> None:
        with trio.fail_after(60):
            async with await client_of(streams.guest) as client, trio.open_nursery() as nursery:
                with open_listener(0) as listener:
                    port = listener.getsockname()[1]
                    nursery.start_soon(client.wait_broken)
                    nursery.start_soon(Forwarder(client, "work", 80).serve, listener)
                    await body(lambda: trio.open_tcp_stream("127.0.0.1", port))
                    nursery.cancel_scope.cancel()

    trio.run(start)


async def wait_until(true: Callable[[], object]) -> None:
    while not true():
        await trio.sleep(0.001)


async def read_all(local: trio.SocketStream) -> bytes:
    return b"".join([bytes(data) async for data in local])


def test_a_connection_is_a_stream_with_both_its_ends(streams: StreamGuest) -> None:
    async def body(connect: Connect) -> None:
        async with await connect() as local:
            await local.send_all(b"ask")
            await local.send_eof()
            await wait_until(lambda: "s1" in streams.ended)
            assert streams.got["s1"] == b"ask"
            streams.send(0, b"answer")
            streams.send(6, b"", eof=True)
            assert await read_all(local) == b"answer"
        await wait_until(lambda: streams.guest.called("stream.close"))

    run(streams, body)


def test_the_sessions_end_first_is_kept_as_well(streams: StreamGuest) -> None:
    async def body(connect: Connect) -> None:
        async with await connect() as local:
            await wait_until(lambda: "s1" in streams.got)
            streams.send(0, b"", eof=True)
            assert await read_all(local) == b""
            await local.send_all(b"late")
            await wait_until(lambda: streams.got["s1"] == b"late")

    run(streams, body)


def test_many_connections_do_not_mix(streams: StreamGuest) -> None:
    async def body(connect: Connect) -> None:
        first = await connect()
        await wait_until(lambda: "s1" in streams.got)
        second = await connect()
        await wait_until(lambda: "s2" in streams.got)
        await first.send_all(b"1")
        await second.send_all(b"2")
        streams.send(0, b"to 2", "s2")
        streams.send(0, b"to 1", "s1")
        assert await first.receive_some() == b"to 1"
        assert await second.receive_some() == b"to 2"
        await wait_until(lambda: streams.got == {"s1": b"1", "s2": b"2"})
        await first.aclose()
        await second.aclose()

    run(streams, body)


def test_nobody_listening_is_one_line_and_a_reset(
    streams: StreamGuest, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("FAILED_PRECONDITION", "port 80 is listened on by nobody")

    streams.guest.answers["forward.open"] = refuse

    async def body(connect: Connect) -> None:
        async with await connect() as local:
            with pytest.raises(trio.BrokenResourceError):
                await local.receive_some()

    run(streams, body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "listened on by nobody" in line


def test_a_loss_is_one_line_and_a_reset(streams: StreamGuest, capsys: pytest.CaptureFixture[str]) -> None:
    async def body(connect: Connect) -> None:
        async with await connect() as local:
            await wait_until(lambda: "s1" in streams.got)
            fault = {"code": "UNAVAILABLE", "message": "session work was closed", "details": {}}
            streams.send(0, b"", eof=True, error=fault)
            with pytest.raises(trio.BrokenResourceError):
                await local.receive_some()

    run(streams, body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "session work was closed" in line


def test_a_local_reset_closes_its_stream_and_no_other(
    streams: StreamGuest, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    async def body(connect: Connect) -> None:
        gone = await connect()
        await wait_until(lambda: "s1" in streams.got)
        other = await connect()
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, control_forward._RESET)
        await gone.aclose()
        await wait_until(lambda: streams.guest.called("stream.close") == [{"stream": "s1"}])
        await other.send_all(b"x")
        await wait_until(lambda: bytes(streams.got.get("s2", b"")) == b"x")
        await other.aclose()

    run(streams, body)
    assert capsys.readouterr().err == ""


def test_a_server_that_reads_no_more_still_answers(streams: StreamGuest) -> None:
    async def body(connect: Connect) -> None:
        async with await connect() as local:
            await wait_until(lambda: "s1" in streams.got)
            streams.ended.add("s1")
            await local.send_all(b"unwanted")
            await wait_until(lambda: streams.guest.called("stream.write"))
            streams.send(0, b"enough", eof=True)
            assert await read_all(local) == b"enough"

    run(streams, body)


def test_a_taken_port_is_said() -> None:
    async def body() -> None:
        with open_listener(0) as listener, pytest.raises(AlreadyExists, match="another LOCAL_PORT"):
            open_listener(listener.getsockname()[1])

    trio.run(body)


@pytest.mark.parametrize(("port", "local"), [(0, None), (65_536, None), (80, 65_536), (80, -1)])
def test_what_is_no_port_is_refused(port: int, local: int | None) -> None:
    with pytest.raises(InvalidParams):
        forward(argparse.Namespace(session="work", port=port, local_port=local, to="unix:///x", token_file=None))


def test_without_a_coworkd_there_is_nothing_to_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COWORKD_URI", raising=False)
    monkeypatch.setattr(control_link, "SYSTEM_SOCKET", "/nowhere/coworkd.sock")
    with pytest.raises(Unavailable, match="--to"):
        forward(argparse.Namespace(session="work", port=80, local_port=0, to=None, token_file=None))


@pytest.fixture
def dialled(streams: StreamGuest, monkeypatch: pytest.MonkeyPatch) -> StreamGuest:
    async def connect(uri: str, *, token: str | None, client_name: str) -> AsyncClient:
        return await client_of(streams.guest)

    monkeypatch.setattr(control_forward, "connect", connect)
    return streams


@pytest.mark.parametrize(
    ("number", "as_json"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
def test_a_signal_ends_it_cleanly(
    dialled: StreamGuest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    as_json: bool,
) -> None:
    serve = Forwarder.serve

    async def serve_and_be_ended(forwarder: Forwarder, listener: trio.socket.SocketType) -> None:
        os.kill(os.getpid(), number)
        await serve(forwarder, listener)

    monkeypatch.setattr(Forwarder, "serve", serve_and_be_ended)
    json = ["--json"] if as_json else []
    assert main(["--to", "unix:///fake", *json, "forward", "work", "80", "0"]) == 128 + number
    said = capsys.readouterr()
    assert said.err == ""
    (line,) = said.out.splitlines()
    assert re.match(
        r'{"address": "127.0.0.1:\d+", "session": "work", "port": 80}' if as_json else r"127.0.0.1:\d+ leads", line
    )


def test_an_unknown_session_is_told_at_once(dialled: StreamGuest, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Fault("NOT_FOUND", "there is no session 'nobody'")

    dialled.guest.answers["session.get"] = refuse
    assert main(["--to", "unix:///fake", "forward", "nobody", "80", "0"]) == 1
    assert "there is no session" in capsys.readouterr().err


def test_the_links_end_is_ours(dialled: StreamGuest, capsys: pytest.CaptureFixture[str]) -> None:
    dialled.guest.after["session.get"] = lambda _: dialled.guest.hang_up()
    assert main(["--to", "unix:///fake", "forward", "work", "80", "0"]) == 1
    assert "the link to the guest" in capsys.readouterr().err
