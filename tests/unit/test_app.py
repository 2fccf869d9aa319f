"""The composition root without a kernel's help: what it reads, composes, and how it comes up and goes down over fakes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from coworkd.bring_up import Connects
from coworkd.cli.daemon import compose_local_config
from coworkd.lifetime import serve
from coworkd.model import egress, launch
from coworkd.model.layout import BwrapFeatures
from coworkd.services.logs import LogService
from coworkd.system import packet


class Program:
    """One that says `Done` to everything but who takes over, and dies of `dies_at`; it remembers what it was asked."""

    def __init__(self, words: Any, *, dies_at: tuple[type, ...] = ()) -> None:
        self.words = words
        self.dies_at = dies_at
        self.asked: list[Any] = []
        self._connected = trio.Event()

    async def connect(self) -> trio.socket.SocketType:
        self._ours, theirs = trio.socket.socketpair(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET)
        self._connected.set()
        return theirs

    async def serve(self) -> None:
        await self._connected.wait()
        while True:
            data, ancillary, flags, _ = await self._ours.recvmsg(*packet.RECEIVE_ARGUMENTS)
            message, _ = packet.unpack(data, ancillary, flags)
            if not message:
                self._ours.close()
                return
            request = msgspec.msgpack.decode(message, type=self.words.Request)
            self.asked.append(request)
            if isinstance(request, self.dies_at):
                self._ours.close()
                return
            await self._ours.send(msgspec.msgpack.encode(self.answer(request)))

    def answer(self, request: Any) -> Any:
        if isinstance(request, egress.Begin):
            return egress.Begun(id=request.id, version=request.version, pid=1, sessions=("left",))
        if isinstance(request, launch.Adopt):
            return launch.TakenOver(id=request.id, supervisors_before=0, sessions=())
        return self.words.Done(id=request.id)


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    features = BwrapFeatures(path="/usr/bin/bwrap", version="bubblewrap 9", options=frozenset())
    monkeypatch.setattr("coworkd.composition.read_bwrap_features", lambda: features)


@pytest.mark.usefixtures("_installed")
def test_an_embedded_app_comes_up_answers_and_goes_down_on_a_signal(tmp_path: Path) -> None:
    config = compose_local_config(state=str(tmp_path / "state"), socket=str(tmp_path / "coworkd.sock"))
    logs = LogService(level="error")
    launcher, proxies = Program(launch), Program(egress)
    said: list[str] = []

    async def drive(came_up: trio.Event) -> None:
        await came_up.wait()
        assert await trio.Path(tmp_path / "coworkd.sock").exists()
        link = await trio.open_unix_socket(str(tmp_path / "coworkd.sock"))
        await link.send_all(b"\x94\x00\x01\xa4ping\x91\x80")  # [0, 1, "ping", [{}]], before any hello
        said.append(repr(await link.receive_some(65536)))
        await link.aclose()
        os.kill(os.getpid(), signal.SIGTERM)

    async def run() -> None:
        connects = Connects(launcher.connect, proxies.connect)
        came_up = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, came_up)

            nursery.start_soon(launcher.serve)
            nursery.start_soon(proxies.serve)
            await serve(config, mode="local", connects=connects, logs=logs, ready=came_up.set)

    trio.run(run)
    logs.close()
    assert "UNAUTHENTICATED" in said[0]
    asked = [type(request) for request in launcher.asked if not isinstance(request, launch.CountWarm)]  # now and then
    assert asked == [launch.Adopt, launch.Quit]
    assert [type(request) for request in proxies.asked] == [egress.Begin, egress.Stop, egress.Quit]
    records = [msgspec.json.decode(line) for line in audit_lines(tmp_path / "state")]
    kinds = [record["kind"] for record in records]
    assert "daemon.start" in kinds
    assert kinds[-1] == "daemon.stop"
    assert not (tmp_path / "coworkd.sock").exists()


@pytest.mark.usefixtures("_installed")
def test_a_launcher_that_dies_at_the_end_keeps_no_coworkd_egress_alive(tmp_path: Path) -> None:
    config = compose_local_config(state=str(tmp_path / "state"), socket=str(tmp_path / "coworkd.sock"))
    logs = LogService(level="error")
    launcher, proxies = Program(launch, dies_at=(launch.Quit,)), Program(egress)

    async def run() -> None:
        connects = Connects(launcher.connect, proxies.connect)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launcher.serve)
            nursery.start_soon(proxies.serve)
            stop = partial(os.kill, os.getpid(), signal.SIGTERM)
            await serve(config, mode="local", connects=connects, logs=logs, ready=stop)

    trio.run(run)
    logs.close()
    assert isinstance(launcher.asked[-1], launch.Quit)
    assert isinstance(proxies.asked[-1], egress.Quit)


def audit_lines(state: Path) -> list[bytes]:
    (log,) = (path for path in (state / ".coworkd" / "audit").iterdir() if path.suffix in (".jsonl", ".log"))
    return log.read_bytes().splitlines()
