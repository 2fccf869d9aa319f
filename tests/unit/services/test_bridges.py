"""`services.bridges`: names, who may, what is recorded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from coworkd.model.errors import (
    AlreadyExists,
    DiskFailed,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.services import bridges
from tests.unit.services.bridge_house import BridgeHouse, Server, bridge_house, dial, free_port, spec
from tests.unit.services.process_house import in_trio, open_fds, settle_threads


@in_trio
async def test_it_listens_when_the_call_is_answered(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            info = await house.open(f"unix://{tmp_path}/in", server.uri)
            dial(tmp_path / "in").close()
            assert (info.state, info.origin, info.listen, info.connect) == (
                "listening",
                "host",
                f"unix://{tmp_path}/in",
                server.uri,
            )


@in_trio
async def test_opening_and_closing_are_recorded_with_what_went_through(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            about = {"name": "b", "listen": f"unix://{tmp_path}/in", "connect": server.uri, "origin": "host"}
            assert house.audit.records == [("bridge.open", {**about, "link": "link"})]
            with dial(tmp_path / "in") as client:
                client.send(b"abc")
                await settle_threads()
            await house.close()
            told = house.audit.fields("bridge.close")
            assert (
                told.items() >= {**about, "link": "link", "reason": "asked for", "connections": 1, "failed": 0}.items()
            )
            assert told["sent_bytes"] == 3
            assert not (tmp_path / "in").exists()
            assert (await house.bridges.list()).bridges == ()


@in_trio
async def test_closing_ends_its_connections_and_no_others(tmp_path: Path) -> None:
    before = open_fds()
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            for name in ("one", "two"):
                await house.open(f"unix://{tmp_path}/{name}", server.uri, name=name)
            first = dial(tmp_path / "one")
            far_first = await server.accept()
            second = dial(tmp_path / "two")
            far_second = await server.accept()
            await house.close("one")
            assert first.recv(1) == b""
            assert far_first.recv(1) == b""
            second.send(b"x")
            await settle_threads()
            assert far_second.recv(1) == b"x"
            for each in (first, far_first, second, far_second):
                each.close()
    assert open_fds() == before


@in_trio
async def test_the_same_again_is_the_same_and_another_is_refused(tmp_path: Path) -> None:
    async with bridge_house() as house:
        await house.open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/out")
        await house.open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/out")
        with pytest.raises(AlreadyExists, match="close it first"):
            await house.open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/elsewhere")
        assert house.audit.kinds == ["bridge.open"]


@in_trio
async def test_what_cannot_listen_is_not_there_and_its_end_is_recorded(tmp_path: Path) -> None:
    port = free_port()
    async with bridge_house() as house:
        with socket.create_server(("127.0.0.1", port)), pytest.raises(InvalidState, match="in use"):
            await house.open(f"tcp://127.0.0.1:{port}", f"unix://{tmp_path}/out")
        assert (await house.bridges.list()).bridges == ()
        assert house.audit.kinds == ["bridge.open", "bridge.close"]
        assert "in use" in house.audit.fields("bridge.close")["reason"]
        await house.open(f"tcp://127.0.0.1:{port}", f"unix://{tmp_path}/out")


@in_trio
async def test_a_way_out_of_a_session_wants_the_admins_word(tmp_path: Path) -> None:
    async with bridge_house(allow_bridges=False) as house:
        with pytest.raises(PolicyDenied, match="allow_bridges"):
            await house.open(f"session://work:{free_port()}", "tcp://192.0.2.1:443")
        assert house.audit.records == []
        await house.open(f"unix://{tmp_path}/in", "session://work:80")


@in_trio
async def test_the_configuration_may_lead_out_of_a_session(tmp_path: Path) -> None:
    configured = spec(f"session://work:{free_port()}", f"unix://{tmp_path}/out")
    async with bridge_house(configured, allow_bridges=False) as house:
        await settle_threads()
        info = await house.info()
        assert (info.state, info.origin) == ("listening", "config")
        assert house.audit.fields("bridge.open")["origin"] == "config"
        await house.close()
        assert (await house.bridges.list()).bridges == ()


@in_trio
async def test_an_unknown_session_fails_the_call() -> None:
    async with bridge_house() as house:
        with pytest.raises(NotFound):
            await house.open(f"session://other:{free_port()}", "unix:///run/x.sock")
        assert (await house.bridges.list()).bridges == ()


@pytest.mark.parametrize(
    ("listen", "connect"),
    [
        ("tcp://127.0.0.1:0", "unix:///a"),
        ("tcp://127.0.0.1:65536", "unix:///a"),
        ("tcp://localhost:80", "unix:///a"),
        ("unix:///a/../b", "unix:///a"),
        ("unix:///a", "http://127.0.0.1:80"),
        ("unix:///a", "vsock://:80"),
        ("exec:///bin/sh", "unix:///a"),
    ],
)
@in_trio
async def test_what_cannot_be_meant_is_refused(listen: str, connect: str) -> None:
    async with bridge_house() as house:
        with pytest.raises(InvalidParams):
            await house.open(listen, connect)
        assert house.audit.records == []


@in_trio
async def test_there_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "BRIDGES", 2)
    async with bridge_house() as house:
        for name in ("one", "two"):
            await house.open(f"unix://{tmp_path}/{name}", f"unix://{tmp_path}/out", name=name)
        with pytest.raises(LimitExceeded):
            await house.open(f"unix://{tmp_path}/three", f"unix://{tmp_path}/out", name="three")
        await house.close("one")
        await house.open(f"unix://{tmp_path}/three", f"unix://{tmp_path}/out", name="three")


@in_trio
async def test_what_cannot_be_recorded_does_not_listen(tmp_path: Path) -> None:
    async with bridge_house() as house:
        house.audit.full.add("bridge.open")
        with pytest.raises(DiskFailed):
            await house.open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/out")
        assert not (tmp_path / "in").exists()


@in_trio
async def test_closing_is_finished_though_its_caller_has_gone(tmp_path: Path) -> None:
    async with bridge_house() as house:
        await house.open(f"unix://{tmp_path}/a.sock", "tcp://127.0.0.1:1")
        bridge = house.bridges._bridges["b"]
        close = bridge.close
        with trio.CancelScope() as caller:

            def close_and_go() -> None:
                close()
                caller.cancel()

            bridge.close = close_and_go  # type: ignore[method-assign]
            await house.close("b")
        await settle_threads()
        assert (await house.bridges.list()).bridges == ()
        assert house.audit.kinds == ["bridge.open", "bridge.close"]
        assert (await house.open(f"unix://{tmp_path}/a.sock", "tcp://127.0.0.1:1")).state == "listening"


@in_trio
async def test_closing_what_is_not_there_is_said() -> None:
    async with bridge_house() as house:
        with pytest.raises(NotFound, match=r"bridge\.list"):
            await house.close("nobody")


@in_trio
async def test_before_it_serves_nothing_is_opened(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await BridgeHouse().open(f"unix://{tmp_path}/in", f"unix://{tmp_path}/out")


@in_trio
async def test_all_end_in_order_and_each_is_recorded_once(tmp_path: Path) -> None:
    async with bridge_house() as house:
        for name in ("one", "two"):
            await house.open(f"unix://{tmp_path}/{name}", f"unix://{tmp_path}/out", name=name)
        house.audit.full.add("bridge.close")
        await house.bridges.end_all()
        assert (await house.bridges.list()).bridges == ()
        await house.open(f"unix://{tmp_path}/one", f"unix://{tmp_path}/out", name="one")
        house.audit.full.clear()
        await house.bridges.end_all()
    assert [kind for kind in house.audit.kinds if kind == "bridge.close"] == ["bridge.close"]
    assert house.audit.fields("bridge.close")["reason"] == "coworkd stops"


@in_trio
async def test_when_coworkd_stops_each_end_is_recorded_and_nothing_is_left(tmp_path: Path) -> None:
    before = open_fds()
    with Server(tmp_path) as server:
        async with bridge_house() as house:
            await house.open(f"unix://{tmp_path}/in", server.uri)
            client = dial(tmp_path / "in")
            await settle_threads()
        assert house.audit.fields("bridge.close")["reason"] == "coworkd stops"
        assert not (tmp_path / "in").exists()
        assert client.recv(1) == b""
        client.close()
    assert open_fds() == before
