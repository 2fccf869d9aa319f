"""A launcher that is a script, and the client that talks to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from msgspec import structs

from coworkd.model import launch
from coworkd.model.errors import CoworkError
from coworkd.services.launching import LauncherClient
from coworkd.system import packet


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Script:
    """The launcher: connections it was asked for, and the words on the newest."""

    def __init__(self) -> None:
        self.states: list[str | None] = []
        self.refuse: OSError | None = None
        self.degraded: tuple[str, ...] = ()
        self.adopted: list[launch.Adopted] = []
        self._socket: trio.socket.SocketType | None = None
        self._connected = trio.Event()
        self.client = LauncherClient(self._connect, version="1", on_state=self.states.append)

    async def _connect(self) -> trio.socket.SocketType:
        if self.refuse is not None:
            raise self.refuse
        ours, theirs = trio.socket.socketpair(trio.socket.AF_UNIX, trio.socket.SOCK_SEQPACKET)
        self._socket = ours
        self._connected.set()
        return theirs

    async def next(self) -> Any:
        """The next request."""
        assert self._socket is not None
        data, ancillary, flags, _ = await self._socket.recvmsg(*packet.RECEIVE_ARGUMENTS)
        message, fds = packet.unpack(data, ancillary, flags)
        for fd in fds:
            os.close(fd)
        return msgspec.msgpack.decode(message, type=launch.Request)

    async def say(self, reply: launch.Reply, *fds: int) -> None:
        """Send it; `fds` are the launcher's copies no longer."""
        await self.say_bytes(msgspec.msgpack.encode(reply), *fds)

    async def say_bytes(self, message: bytes, *fds: int) -> None:
        assert self._socket is not None
        data, ancillary, memfd = packet.pack(message, fds)
        await self._socket.sendmsg(data, ancillary)
        for fd in (*fds, *([memfd] if memfd >= 0 else [])):
            os.close(fd)

    async def answer(self, reply: launch.Answer, *fds: int) -> Any:
        """Take the next request and give it this answer."""
        request = await self.next()
        await self.say(structs.replace(reply, id=request.id), *fds)
        return request

    async def next_of_new(self) -> Any:
        """The first request of a connection."""
        await self._connected.wait()
        self._connected = trio.Event()
        return await self.next()

    async def adopt(self) -> None:
        """Answer the first request of a connection."""
        request = await self.next_of_new()
        assert isinstance(request, launch.Adopt)
        for adopted in self.adopted:
            fds = [os.memfd_create(name) for name in adopted.spawned.fds]
            await self.say(structs.replace(adopted, id=request.id), *fds)
        await self.say(launch.TakenOver(id=request.id, supervisors_before=0, sessions=(), degraded=self.degraded))

    def die(self) -> None:
        assert self._socket is not None
        self._socket.close()


@asynccontextmanager
async def open_script(*adopted: launch.Adopted) -> AsyncIterator[Script]:
    before = open_fds()
    script = Script()
    script.adopted = list(adopted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script.adopt)
        await nursery.start(script.client.serve)
        yield script
        nursery.cancel_scope.cancel()
    script.die()
    for _, fds in script.client.adopted:
        fds.close()
    assert open_fds() == before


async def both(call: Awaitable[Any], *steps: Awaitable[Any]) -> Any:
    """The result of `call` while the script's `steps` are played in order."""
    results: list[Any] = []

    async def ask() -> None:
        results.append(await call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        for step in steps:
            await step
    return results[0]


async def error_of(call: Awaitable[Any], *steps: Awaitable[Any]) -> CoworkError:
    """What `call` raises while the script's `steps` are played."""

    async def catch() -> CoworkError:
        with pytest.raises(CoworkError) as caught:
            await call
        return caught.value

    error = await both(catch(), *steps)
    assert isinstance(error, CoworkError)
    return error
