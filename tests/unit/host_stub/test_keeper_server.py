"""The control socket, over a real one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import Struct

from coworkd.client import aio
from coworkd.client.aio import AsyncClient
from coworkd.model.errors import CoworkError, Unauthenticated, Unavailable
from coworkd.wire.connection import Connection
from coworkd.wire.fault import parse_fault
from host_stub.keeper_server import KeeperServer, Method
from host_stub.keeper_words import NoParams, trouble_of
from host_stub.words import Trouble


class Echo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str


async def echo(params: Echo) -> dict[str, Any]:
    await trio.lowlevel.checkpoint()
    return {"text": params.text}


async def trouble(_params: NoParams) -> None:
    await trio.lowlevel.checkpoint()
    raise Trouble("no_space", "full", remedy="room")


async def bug(_params: NoParams) -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError


async def forever(_params: NoParams) -> None:
    await trio.sleep_forever()


METHODS = {
    "echo": Method(params=Echo, call=echo),
    "trouble": Method(params=NoParams, call=trouble),
    "bug": Method(params=NoParams, call=bug),
    "forever": Method(params=NoParams, call=forever),
}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(KeeperServer(path, METHODS, boot_id="b").run)
        yield
        nursery.cancel_scope.cancel()


def play(path: Path, script: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with serving(path), await aio.connect(f"unix://{path}") as client:
                await script(client)

    trio.run(main)


async def refusal(client: AsyncClient, method: str, **params: Any) -> CoworkError:
    with pytest.raises(CoworkError) as caught:
        await client.call(method, params)
    return caught.value


def test_calls_are_answered_side_by_side(tmp_path: Path) -> None:
    async def script(client: AsyncClient) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "forever")
            assert await client.call("echo", {"text": "a"}) == {"text": "a"}
            nursery.cancel_scope.cancel()

    play(tmp_path / "s", script)


def test_refusals_say_what_is_wrong(tmp_path: Path) -> None:
    async def script(client: AsyncClient) -> None:
        assert "did you mean echo" in (await refusal(client, "ecko")).message
        assert "did you mean 'text'" in (await refusal(client, "echo", txt="a")).message
        assert trouble_of(await refusal(client, "trouble")).code == "no_space"
        assert "keeper.log" in (await refusal(client, "bug")).message
        assert await client.call("echo", {"text": "still there"}) == {"text": "still there"}

    play(tmp_path / "s", script)


def test_a_link_may_not_call_without_end(tmp_path: Path) -> None:
    async def script(client: AsyncClient) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(client.call, "forever")
            await trio.testing.wait_all_tasks_blocked()
            assert "at once on one link" in (await refusal(client, "echo", text="a")).message
            nursery.cancel_scope.cancel()

    play(tmp_path / "s", script)


def test_hello_comes_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "s"), await trio.open_unix_socket(str(tmp_path / "s")) as stream:
            connection = Connection("host")
            await stream.send_all(connection.send_request("echo", {"text": "a"})[1])
            connection.receive_data(bytes(await stream.receive_some(4096)))
            answer: Any = connection.next_event()
            assert isinstance(parse_fault(answer.error), Unauthenticated)

    trio.run(main)


@pytest.mark.parametrize("data", [b"\xc1", b"GET / HTTP/1.1\r\n\r\n", b"\xdd\xff\xff\xff\xff", b"\x94\x00"])
def test_who_breaks_the_wire_is_told_and_left_and_others_are_not(tmp_path: Path, data: bytes) -> None:
    async def script(client: AsyncClient) -> None:
        async with await trio.open_unix_socket(str(tmp_path / "s")) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            while await stream.receive_some(4096):
                pass
        assert await client.call("echo", {"text": "a"}) == {"text": "a"}

    play(tmp_path / "s", script)


@pytest.mark.parametrize("calls", [1, 200])
def test_a_client_that_is_killed_before_it_reads_harms_nobody(tmp_path: Path, calls: int) -> None:
    """What lies unread resets the link on Linux, and answers find nobody."""

    async def script(client: AsyncClient) -> None:
        stream = await trio.open_unix_socket(str(tmp_path / "s"))
        connection = Connection("host")
        hello = {"client": "killed", "protocol": {"min": 1, "max": 1}}
        await stream.send_all(connection.send_request("hello", hello)[1])
        for number in range(calls):
            await stream.send_all(connection.send_request("echo", {"text": f"{number}" * 1000})[1])
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await client.call("echo", {"text": "a"}) == {"text": "a"}

    play(tmp_path / "s", script)


def test_the_socket_is_its_owners_replaces_a_leftover_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("left over")

    async def main() -> None:
        async with serving(path):
            assert path.stat().st_mode & 0o777 == 0o600
        assert not path.exists()
        with pytest.raises(Unavailable):
            await aio.connect(f"unix://{path}")

    trio.run(main)


def test_a_place_that_cannot_be_listened_at_is_a_trouble(tmp_path: Path) -> None:
    async def main() -> None:
        server = KeeperServer(tmp_path / "none" / "s", METHODS, boot_id="b")
        with pytest.raises(Trouble, match="listening at"):
            await server.run()

    before = os.umask(0o022)
    os.umask(before)
    trio.run(main)
    now = os.umask(before)
    assert now == before
