"""The disk worker, from coworkd's side: started by the launcher for one errand, asked one thing, and let go.

A worker that stayed would hold all of root's rights for nothing. One that is closed on the way ends with the programs it runs; what it had
begun goes on from where it was when the same is asked again.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar

import msgspec

from coworkd.model import disk
from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.system.worker_link import ask_once

_decoder: msgspec.msgpack.Decoder[disk.Answer] = msgspec.msgpack.Decoder(disk.Answer)
_A = TypeVar("_A", disk.BroughtUp, disk.DiskFound, disk.Trimmed, disk.Grown)


class DiskPort(Protocol):
    """Who can bring a disk up. All raise `Unavailable` where nobody is there to do it, `DiskFailed` for what was refused."""

    async def bring_up(self, ask: disk.BringUp, /) -> disk.BroughtUp: ...

    async def find(self, ask: disk.BringUp, /) -> disk.DiskFound: ...

    async def trim(self, mount_point: str, /) -> int: ...

    async def grow(self, mount_point: str, size: int | None, /) -> disk.Grown: ...

    async def own(self, mount_point: str, /) -> None:
        """From now on it is unmounted when the launcher ends."""


class DiskWorker:
    """Implements `DiskPort` by a worker of the launcher's."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def bring_up(self, ask: disk.BringUp, /) -> disk.BroughtUp:
        return await self._ask(ask, disk.BroughtUp)

    async def find(self, ask: disk.BringUp, /) -> disk.DiskFound:
        return await self._ask(disk.FindDisk(id=1, ask=ask), disk.DiskFound)

    async def trim(self, mount_point: str, /) -> int:
        answer = await self._ask(disk.Trim(id=1, mount_point=os.fsencode(mount_point)), disk.Trimmed)
        return answer.trimmed_bytes

    async def grow(self, mount_point: str, size: int | None, /) -> disk.Grown:
        return await self._ask(disk.Grow(id=1, mount_point=os.fsencode(mount_point), size=size), disk.Grown)

    async def own(self, mount_point: str, /) -> None:
        await self._launcher.own_mount(mount_point, owned=True)

    async def _ask(self, request: disk.Request, kind: type[_A]) -> _A:
        handle = await self._launcher.start_worker("disk")
        try:
            answer = await ask_once(handle.socket, request, decoder=_decoder)
        except ConnectionResetError as error:
            raise Unavailable(f"the disk cannot be seen to: {error.strerror}; the launcher's log says why") from error
        return _judge(answer, kind)


def _judge(answer: disk.Answer, kind: type[_A]) -> _A:
    if isinstance(answer, disk.DiskRefused):
        raise DiskFailed(answer.message, errno=answer.errno)
    if not isinstance(answer, kind):
        raise Unavailable(f"the disk worker answered with {type(answer).__name__}")
    return answer
