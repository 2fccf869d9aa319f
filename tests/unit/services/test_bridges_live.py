"""`services.bridges_live`: it listens, leads on, and begins again."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
import trio

from coworkd.services.bridges_ends import Listener
from coworkd.services.bridges_live import (
    ACCEPT_PAUSE_S,
    CONNECT_S,
    IDLE_S,
    LOOK_S,
    PAUSE_FIRST_S,
    PAUSE_LAST_S,
)
from tests.unit.services.bridge_house import Server, bridge_house, dial, free_port, spec
from tests.unit.services.process_house import NOW, in_trio, jump, open_fds, settle_threads


@in_trio
async def test_connections_are_led_on_and_counted(tmp_path: Path) -> None:
    before = open_fds()
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            client = dial(tmp_path / "in")
            client.send(b"hello")
            far = await server.accept()
            await settle_threads()
            assert far.recv(10) == b"hello"
            far.send(b"hi")
            await settle_threads()
            assert client.recv(10) == b"hi"
            info = await house.info()
            assert (info.connections, info.connections_total, info.failed_total) == (1, 1, 0)
            assert (info.sent_bytes, info.received_bytes, info.state) == (5, 2, "listening")
            client.close()
            far.close()
            await settle_threads()
            assert (await house.info()).connections == 0
    assert open_fds() == before


@in_trio
async def test_nobody_at_the_other_end_is_a_reset_and_a_last_error(tmp_path: Path) -> None:
    async with bridge_house() as house:
        port = free_port()
        await house.open(f"tcp://127.0.0.1:{port}", f"unix://{tmp_path}/nobody")
        with socket.create_connection(("127.0.0.1", port)) as client:
            await settle_threads()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        info = await house.info()
        assert (info.failed_total, info.connections, info.last_error_at) == (1, 0, NOW)
        assert info.last_error == os.strerror(errno.ENOENT)
        assert info.state == "listening"


@in_trio
async def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bridge_house() as house:
        monkeypatch.setattr(house.ends, "connect", lambda end: trio.sleep_forever())
        await house.open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/out")
        with dial(tmp_path / "in") as client:
            await settle_threads()
            jump(CONNECT_S)
            await settle_threads()
            assert client.recv(1) == b""
        info = await house.info()
        assert info.failed_total == 1
        assert "did not answer" in (info.last_error or "")


@in_trio
async def test_a_name_no_resolver_takes_is_a_failed_connection_and_no_more(tmp_path: Path) -> None:
    async with bridge_house() as house:
        await house.open(f"unix://{tmp_path}/in", f"tcp://{'a' * 70}.example:80")
        with dial(tmp_path / "in"):
            await settle_threads()
        await house.open(f"unix://{tmp_path}/in2", f"unix://{tmp_path}/out", name="other")
        assert (await house.info()).failed_total == 1


@in_trio
async def test_more_than_may_be_at_once_wait_to_be_accepted(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with bridge_house(connections=2) as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            clients = [dial(tmp_path / "in") for _ in range(3)]
            await settle_threads()
            assert (await house.info()).connections == 2
            clients[0].close()
            for _ in range(2):  # which of them is the other end of it is not told
                (await server.accept()).close()
            assert (await house.wait_counted(3)).connections == 2
            for each in clients[1:]:
                each.close()


@in_trio
async def test_a_listener_that_cannot_be_made_is_tried_again_ever_later_and_told(tmp_path: Path) -> None:
    port = free_port()
    with Server(tmp_path) as server, socket.create_server(("127.0.0.1", port)) as taken:
        async with bridge_house(spec(f"tcp://127.0.0.1:{port}", server.uri)) as house:
            await settle_threads()
            assert (await house.info()).state == "waiting"
            assert "in use" in house.degraded["bridge b"]
            for pause_s in (PAUSE_FIRST_S, PAUSE_FIRST_S * 2):
                jump(pause_s)
                await settle_threads()
            for _ in range(10):
                jump(PAUSE_LAST_S)
                await settle_threads()
            taken.close()
            jump(PAUSE_LAST_S - 1)
            await settle_threads()
            assert (await house.info()).state == "waiting"
            jump(1)
            await settle_threads()
            assert (await house.info()).state == "listening"
            assert house.degraded == {}
            socket.create_connection(("127.0.0.1", port)).close()


@in_trio
async def test_a_session_that_is_not_there_is_no_trouble_and_soon_served_when_it_is(tmp_path: Path) -> None:
    port = free_port()
    with Server(tmp_path) as server:
        async with bridge_house(spec(f"session://later:{port}", server.uri)) as house:
            for _ in range(20):
                await settle_threads()
                jump(LOOK_S)
            await settle_threads()
            assert house.degraded == {}
            assert (await house.info()).state == "waiting"
            house.directory.names.add("later")
            jump(LOOK_S)
            await settle_threads()
            assert (await house.info()).state == "listening"


@in_trio
async def test_a_session_that_opened_is_served_at_once_when_somebody_says_so(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with bridge_house(spec(f"session://later:{free_port()}", server.uri)) as house:
            await settle_threads()
            house.directory.names.add("later")
            house.bridges.look()
            await settle_threads()
            assert (await house.info()).state == "listening"


@pytest.mark.parametrize("how", ["gone", "opened anew"])
@in_trio
async def test_a_session_that_is_another_one_ends_its_bridge_and_gets_a_new_one(tmp_path: Path, how: str) -> None:
    port = free_port()
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"session://work:{port}", server.uri)
            client = socket.create_connection(("127.0.0.1", port))
            far = await server.accept()
            jump(LOOK_S)
            await settle_threads()
            assert (await house.info()).connections == 1
            if how == "gone":
                house.directory.names.discard("work")
            else:
                house.ends.moved = True
            jump(LOOK_S)
            await settle_threads()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert far.recv(1) == b""
            client.close()
            far.close()
            assert (await house.info()).state == "waiting"
            house.directory.names.add("work")
            house.ends.moved = False
            jump(LOOK_S)
            await settle_threads()
            assert (await house.info()).state == "listening"
            socket.create_connection(("127.0.0.1", port)).close()


@in_trio
async def test_a_launcher_that_is_away_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"session://work:{port}", server.uri)

            async def away(session: str) -> int:
                raise OSError(errno.EPIPE, "away")

            monkeypatch.setattr(house.ends, "network_of", away)
            jump(LOOK_S)
            await settle_threads()
            assert (await house.info()).state == "listening"
            socket.create_connection(("127.0.0.1", port)).close()


@in_trio
async def test_a_lack_of_descriptors_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Listener.accept
    failures = [OSError(errno.EMFILE, "Too many open files")]

    async def accept_later(listener: Listener) -> socket.socket:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(Listener, "accept", accept_later)
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            await settle_threads()
            info = await house.info()
            assert (info.state, info.last_error) == ("listening", "Too many open files")
            with dial(tmp_path / "in"):
                jump(ACCEPT_PAUSE_S)
                await settle_threads()
                assert (await house.info()).connections == 1


@in_trio
async def test_a_listener_that_fails_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Listener.accept
    failures = [OSError(errno.ENETDOWN, "Network is down")]

    async def accept_or_fail(listener: Listener) -> socket.socket:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(Listener, "accept", accept_or_fail)
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            await settle_threads()
            assert (await house.info()).state == "waiting"
            jump(PAUSE_FIRST_S)
            await settle_threads()
            with dial(tmp_path / "in"):
                await settle_threads()
                assert (await house.info()).connections == 1


@in_trio
async def test_a_connection_through_which_nothing_moves_ends(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            with dial(tmp_path / "in") as client, await server.accept():
                jump(IDLE_S)
                await settle_threads()
                assert client.recv(1) == b""
            assert "nothing moved" in ((await house.info()).last_error or "")
