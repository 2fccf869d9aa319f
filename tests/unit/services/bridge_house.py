"""Bridges whose sessions are the test's own network, and whose clock is the test's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from coworkd.model import calls
from coworkd.model.bridge import BridgeInfo, BridgeSpec, parse_bridge
from coworkd.services.bridges import Bridges
from coworkd.services.bridges_ends import Ends
from coworkd.services.bridges_live import CONNECTIONS
from tests.unit.services.process_house import NOW, FakeAudit, settle_threads
from tests.unit.services.stream_house import Directory, SocketLauncher, StreamLink

TRIES = 400
"""So often a test looks again for what the kernel has to do first: on a busy machine that takes longer than nothing happens here."""


class HouseEnds(Ends):
    """`moved` says that the session has another network now than any socket made before."""

    def __init__(self, launcher: SocketLauncher, directory: Directory, **options: Any) -> None:
        super().__init__(sessions=directory, launcher=launcher, **options)
        self.moved = False

    async def network_of(self, session: str) -> int:
        found = await super().network_of(session)
        return -1 if self.moved else found


class BridgeHouse:
    """A service, and what it told and recorded."""

    def __init__(self, *, allow_bridges: bool = True, connections: int = CONNECTIONS, **options: Any) -> None:
        self.audit = FakeAudit()
        self.launcher = SocketLauncher()
        self.directory = Directory()
        self.degraded: dict[str, str] = {}
        self.link = StreamLink()
        self.ends = HouseEnds(self.launcher, self.directory, **{"own_sockets": (), **options})
        self.bridges = Bridges(
            ends=self.ends,
            audit=self.audit,
            on_degraded=self._degrade,
            allow_bridges=allow_bridges,
            connections=connections,
            clock=lambda: NOW,
        )

    def _degrade(self, part: str, reason: str | None) -> None:
        if reason is None:
            self.degraded.pop(part, None)
        else:
            self.degraded[part] = reason

    async def open(self, listen: str, connect: str, name: str = "b") -> BridgeInfo:
        params = calls.BridgeOpen(name=name, listen=listen, connect=connect)
        return (await self.bridges.open(params, self.link)).bridge

    async def wait_counted(self, connections_total: int) -> BridgeInfo:
        """Once so many have been led on."""
        for _ in range(TRIES):
            await settle_threads()
            found = await self.info()
            if found.connections_total == connections_total:
                return found
        raise AssertionError(f"not {connections_total} connections, but {found}")

    async def close(self, name: str = "b") -> None:
        await self.bridges.close(calls.BridgeClose(name=name), self.link)

    async def info(self, name: str = "b") -> BridgeInfo:
        (found,) = (each for each in (await self.bridges.list()).bridges if each.name == name)
        return found


def spec(listen: str, connect: str, name: str = "b") -> BridgeSpec:
    return parse_bridge({"name": name, "listen": listen, "connect": connect})


@asynccontextmanager
async def bridge_house(*specs: BridgeSpec, **options: Any) -> AsyncIterator[BridgeHouse]:
    """Bridges that are served, those of the configuration first; cancelled at the end."""
    house = BridgeHouse(**options)
    async with trio.open_nursery() as nursery:
        await nursery.start(house.bridges.serve, specs)
        yield house
        nursery.cancel_scope.cancel()


class Server:
    """Something to lead to: a unix socket that the test accepts on."""

    def __init__(self, directory: Path, name: str = "server.sock") -> None:
        self.path = directory / name
        self.uri = f"unix://{self.path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(300)
        self._listener.setblocking(False)

    async def accept(self) -> socket.socket:
        for _ in range(TRIES):
            await settle_threads()
            with contextlib.suppress(BlockingIOError):
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                return accepted
        raise AssertionError("nobody has come")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def dial(path: Path) -> socket.socket:
    """A non-blocking connection to a unix socket."""
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    made.setblocking(False)
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
