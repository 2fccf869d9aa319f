from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from host_stub.vz import hybrid as module
from host_stub.vz.hybrid import GuestConnection, Hybrid, stream_from
from host_stub.words import Trouble


class Guest:
    """VZ and the guest behind it: port 5 answers, 6 never does, all else is refused."""

    def __init__(self) -> None:
        self.ends: list[trio.SocketStream] = []
        self.released = 0

    async def connect(self, port: int) -> GuestConnection:
        if port == 6:
            await trio.sleep_forever()
        if port != 5:
            raise Trouble("vz_failed", "refused", remedy="none")
        return self.make()

    def make(self) -> GuestConnection:
        ours, theirs = socket.socketpair()
        self.ends.append(stream_from(theirs.detach()))
        return GuestConnection(ours.detach(), 1029, self._release)

    def _release(self) -> None:
        self.released += 1


@asynccontextmanager
async def served(tmp_path: object) -> AsyncIterator[tuple[Guest, Hybrid, Callable[[], Awaitable[trio.SocketStream]]]]:
    path = f"{tmp_path}/v"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    guest = Guest()
    hybrid = Hybrid(guest.connect)

    clients: list[trio.SocketStream] = []

    async def dial() -> trio.SocketStream:
        clients.append(await trio.open_unix_socket(path))
        return clients[-1]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hybrid.serve, listener)
        yield guest, hybrid, dial
        nursery.cancel_scope.cancel()
    for stream in (*clients, *guest.ends):
        await stream.aclose()


async def read_all(stream: trio.SocketStream) -> bytes:
    data = b""
    try:
        while piece := await stream.receive_some(4096):
            data += piece
    except trio.BrokenResourceError:
        pass
    return data


def run(body: Callable[[], Awaitable[None]]) -> None:
    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_bytes_go_both_ways_and_ends_are_passed_on(tmp_path: object) -> None:
    async def body() -> None:
        async with served(tmp_path) as (guest, _, dial):
            client = await dial()
            await client.send_all(b"CONNECT 5\nfirst")
            assert await client.receive_some(100) == b"OK 1029\n"
            assert await guest.ends[0].receive_some(100) == b"first"
            await client.send_eof()
            assert await guest.ends[0].receive_some(100) == b""
            await guest.ends[0].send_all(b"still")
            assert await client.receive_some(100) == b"still"
            assert guest.released == 0
            await guest.ends[0].send_eof()
            assert await client.receive_some(100) == b""
            while not guest.released:
                await trio.sleep(0.01)
            assert guest.released == 1

    run(body)


@pytest.mark.parametrize(
    "said", [b"CONNECT 7\n", b"HELLO\n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"A" * 100, b"CONNECT 5"]
)
def test_what_leads_nowhere_is_closed_without_ok(tmp_path: object, said: bytes) -> None:
    async def body() -> None:
        async with served(tmp_path) as (guest, _, dial):
            client = await dial()
            await client.send_all(said)
            if said == b"CONNECT 5":
                await client.send_eof()
            assert await read_all(client) == b""
            assert guest.ends == []

    run(body)


@pytest.mark.parametrize("said", [b"", b"CONNECT ", b"CONNECT 6\n"])
def test_a_handshake_that_takes_too_long_is_given_up(tmp_path: object, said: bytes) -> None:
    async def body() -> None:
        async with served(tmp_path) as (_, _, dial):
            client = await dial()
            before = trio.current_time()
            if said:
                await client.send_all(said)
            assert await read_all(client) == b""
            assert trio.current_time() - before >= module.HANDSHAKE_S

    run(body)


def test_clients_are_bounded(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS", 2)

    async def body() -> None:
        async with served(tmp_path) as (guest, _, dial):
            clients = [await dial() for _ in range(2)]
            for client in clients:
                await client.send_all(b"CONNECT 5\n")
                assert await client.receive_some(100) == b"OK 1029\n"
            assert await read_all(await dial()) == b""
            await clients[0].aclose()
            await guest.ends[0].aclose()
            await trio.sleep(1)
            again = await dial()
            await again.send_all(b"CONNECT 5\n")
            assert await again.receive_some(100) == b"OK 1029\n"

    run(body)


def test_a_client_that_goes_between_is_cleaned_up(tmp_path: object) -> None:
    async def body() -> None:
        async with served(tmp_path) as (guest, _, dial):
            client = await dial()
            await client.send_all(b"CONNECT 5\n")
            await trio.aclose_forcefully(client)
            while not guest.released:
                await trio.sleep(0.01)
            assert await read_all(guest.ends[0]) == b""

    run(body)


def test_incoming_is_relayed_and_given_back(tmp_path: object) -> None:
    async def body() -> None:
        async with served(tmp_path) as (guest, hybrid, _), trio.open_nursery() as nursery:
            ours, theirs = socket.socketpair()
            listening = stream_from(theirs.detach())
            nursery.start_soon(hybrid.relay_incoming, guest.make(), stream_from(ours.detach()))
            await guest.ends[0].send_all(b"up")
            assert await listening.receive_some(10) == b"up"
            await listening.aclose()
            assert await read_all(guest.ends[0]) == b""
            await guest.ends[0].aclose()
            while not guest.released:
                await trio.sleep(0.01)

    run(body)
