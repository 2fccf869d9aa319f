"""Where the health port listens, and what becomes of it where it cannot."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from coworkd import health_port
from coworkd.config import HealthConfig
from coworkd.health_port import RETRY_S, HealthPort
from coworkd.services.health import Health
from coworkd.services.health_thread import HealthThread
from tests.unit.services.test_health import Clock

GET = b"GET /live HTTP/1.0\r\n\r\n"


def ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(GET)
        return client.recv(65536)


async def until(nursery: trio.Nursery, port: HealthPort, true: object) -> None:
    nursery.start_soon(port.serve)
    assert callable(true)
    with trio.fail_after(60):
        while not true():
            await trio.lowlevel.checkpoint()


def test_it_answers_on_a_private_socket_and_takes_it_away(tmp_path: Path) -> None:
    path = tmp_path / "health.sock"
    health = Health(boot_id="b", state_dir="/s")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await until(nursery, HealthPort(HealthConfig(endpoints=(f"unix://{path}",)), health=health), path.exists)
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert ask(path).startswith(b"HTTP/1.1 200 OK\r\n")  # this loop stands meanwhile
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert not path.exists()
    assert health.degraded == {}


def test_a_loop_that_hangs_is_told_while_it_hangs(tmp_path: Path) -> None:
    path, clock = tmp_path / "health.sock", Clock(100.0)
    health = Health(boot_id="b", state_dir="/s", monotonic=clock)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await until(nursery, HealthPort(HealthConfig(endpoints=(f"unix://{path}",)), health=health), path.exists)
            nursery.start_soon(health.beat)
            await trio.testing.wait_all_tasks_blocked()
            clock.now += 9.0
            assert b'"live":true' in ask(path)  # this one step never gives way, so nothing beats
            clock.now += 2.0
            assert ask(path).startswith(b"HTTP/1.1 503 ")
            assert b'"live":false,"turned_ago_s":11.0' in ask(path)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_cannot_be_listened_on_is_told_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "later" / "health.sock"
    uri = f"unix://{path}"
    health = Health(boot_id="b", state_dir="/s")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            port = HealthPort(HealthConfig(endpoints=(uri,)), health=health)
            await until(nursery, port, lambda: health.degraded)
            assert "does its directory exist" in health.degraded[f"health port {uri}"]
            path.parent.mkdir()
            await trio.sleep(RETRY_S)
            await trio.testing.wait_all_tasks_blocked()
            assert health.degraded == {}
            assert ask(path).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_on_vsock_only_the_host_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []

    class Fake:
        def start(self) -> None: ...

        def close(self) -> None: ...

    def make(port: HealthPort) -> object:
        def thread(listener: object, *, may_come: object) -> Fake:
            assert listener == "listening on vsock://:5008"
            assert callable(may_come)
            heard.extend(may_come((cid, 1000)) for cid in (2, 1, 3, 0xFFFFFFFF))
            return Fake()

        return thread

    monkeypatch.setattr(health_port, "listen_vsock", lambda endpoint: f"listening on {endpoint}")
    monkeypatch.setattr(HealthPort, "_load", make)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            port = HealthPort(HealthConfig(endpoints=("vsock://:5008",)), health=Health(boot_id="b", state_dir="/s"))
            await until(nursery, port, lambda: heard)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert heard == [True, False, False, False]


def test_without_endpoints_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HealthThread, "start", lambda self: pytest.fail("nobody asked for a thread"))
    trio.run(HealthPort(HealthConfig(endpoints=()), health=Health(boot_id="b", state_dir="/s")).serve)
