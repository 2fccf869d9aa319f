"""The launcher, for those who mount folders and need workers: implements `ports.FolderLauncherPort` over the client's one connection.

Rules: a descriptor that comes along is the caller's; an answer with another number of them than its word has is a launcher that breaks
the words. A call that was sent is waited for even where its caller is cancelled (`launching`): its answer may bring descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, Protocol, TypeVar

from coworkd.model import launch
from coworkd.model.errors import Unavailable
from coworkd.model.ports import MountedFolder, UnmountedFolder, WorkerHandle
from coworkd.services.launching_refusals import raise_folder_refusal, raise_refusal, raise_worker_refusal

_A = TypeVar("_A", bound=launch.Answer)


class AskForFds(Protocol):
    """Send a request, wait for an answer of that kind, own its descriptors."""

    async def __call__(
        self,
        request: launch.Request,
        kind: type[_A],
        fds: tuple[int, ...] = (),
        on_refused: Callable[[launch.Refused], NoReturn] = raise_refusal,
    ) -> tuple[_A, list[int]]: ...


class LauncherFolders:
    """Implements `ports.FolderLauncherPort`."""

    def __init__(self, ask_for_fds: AskForFds, *, generation: Callable[[], int]) -> None:
        self._ask_for_fds = ask_for_fds
        self._generation = generation

    @property
    def generation(self) -> int:
        return self._generation()

    async def mount_folder(self, request: launch.MountFolder, /) -> MountedFolder:
        """See `ports.FolderLauncherPort`. Raises `InvalidState`, `MountFailed`, `Unavailable`."""
        mounted, fds = await self._ask_for_fds(request, launch.FolderMounted, (), raise_folder_refusal)
        taken = _take(fds, 1 if mounted.mounted_as == "guarded" else 0)
        socket = taken[0] if taken else None
        return MountedFolder(mounted_as=mounted.mounted_as, degraded=mounted.degraded, socket=socket)

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        """See `ports.FolderLauncherPort`. Raises `MountFailed`, `Unavailable`."""
        request = launch.UnmountFolder(id=0, session=session, name=name, lazy=lazy)
        gone, fds = await self._ask_for_fds(request, launch.FolderUnmounted, (), raise_folder_refusal)
        _take(fds, 0)
        return UnmountedFolder(busy=gone.busy, leftovers=gone.leftovers)

    async def start_worker(self, kind: launch.WorkerKind, session: str | None = None, /) -> WorkerHandle:
        """See `ports.FolderLauncherPort`. Raises `InvalidState`, `Unavailable`."""
        request = launch.StartWorker(id=0, kind=kind, session=session)
        started, fds = await self._ask_for_fds(request, launch.WorkerStarted, (), raise_worker_refusal)
        return WorkerHandle(worker=started.worker, pid=started.pid, socket=_take(fds, 1)[0])

    async def kill_worker(self, worker: int, /) -> None:
        """See `ports.FolderLauncherPort`. Raises `Unavailable`."""
        await self._ask_for_fds(launch.KillWorker(id=0, worker=worker), launch.Done, (), raise_worker_refusal)

    async def own_mount(self, path: str, *, owned: bool) -> None:
        """See `ports.FolderLauncherPort`. Raises `MountFailed`, `Unavailable`."""
        request = launch.OwnMount(id=0, path=os.fsencode(path), owned=owned)
        await self._ask_for_fds(request, launch.Done, (), raise_folder_refusal)


def _take(fds: list[int], count: int) -> list[int]:
    if len(fds) != count:
        for fd in fds:
            os.close(fd)
        raise Unavailable(f"the launcher sent {len(fds)} descriptors where {count} belong")
    return fds
