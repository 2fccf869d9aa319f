"""What folders need of others, faked: a launcher that mounts, stages, and a guard. They keep to the contracts of `model.ports`."""

from __future__ import annotations

import errno
from collections.abc import Callable

import trio

from coworkd.model.errors import CoworkError, MountFailed, Unavailable
from coworkd.model.folder import MountedAs
from coworkd.model.launch import MountFolder, WorkerKind
from coworkd.model.ports import MountedFolder, UnmountedFolder, WorkerHandle

AS_MODE: dict[str, MountedAs] = {"ro": "idmapped", "rw": "guarded", "rwd": "idmapped", "staged": "overlay"}


class FakeMounts:
    """Implements `ports.FolderLauncherPort`: what is mounted outlives coworkd, and goes with its launcher.

    `trace` is the order of effects, `fails` what becomes of a mount by folder name, `rwd_as` how the kernel can do `rwd`.
    """

    def __init__(self, trace: list[str], generation: Callable[[], int]) -> None:
        self.trace = trace
        self._generation = generation
        self.there: dict[tuple[str, str], MountFolder] = {}
        self.stand_as: dict[tuple[str, str], MountedAs] = {}
        self.fails: dict[str, CoworkError] = {}
        self.unmount_fails: CoworkError | None = None
        self.busy: set[str] = set()
        self.rwd_as: MountedAs = "idmapped"
        self.degraded: tuple[str, ...] = ()
        self.asked: list[MountFolder] = []
        self.running = self.most_running = 0
        self.is_away = False

    @property
    def generation(self) -> int:
        return self._generation()

    async def mount_folder(self, request: MountFolder, /) -> MountedFolder:
        self.asked.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.running -= 1
        if self.is_away:
            raise Unavailable("the launcher is away; it is being started again")
        if request.name in self.fails:
            raise self.fails[request.name]
        key = (request.session, request.name)
        held = self.there.get(key)
        if held is None:
            self.trace.append(f"mount {request.name} {request.mode}")
            self.stand_as[key] = self.rwd_as if request.mode == "rwd" else AS_MODE[request.mode]
        elif not self._is_like(held, request):
            raise MountFailed("it is mounted in another way", errno=errno.EEXIST, stage="folder")
        self.there[key] = request
        return MountedFolder(mounted_as=self.stand_as[key], degraded=self.degraded, socket=None)

    def _is_like(self, held: MountFolder, request: MountFolder) -> bool:
        """In a guarded one `rw` and `rwd` differ by a rule that its file system is told."""
        guarded = self.stand_as[request.session, request.name] == "guarded"
        same_mode = held.mode == request.mode or (guarded and {held.mode, request.mode} == {"rw", "rwd"})
        return same_mode and (held.root, held.source) == (request.root, request.source)

    async def unmount_folder(self, session: str, name: str, /, *, lazy: bool = True) -> UnmountedFolder:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise Unavailable("the launcher is away; it is being started again")
        if self.unmount_fails is not None:
            raise self.unmount_fails
        busy = name in self.busy
        if busy and not lazy:
            return UnmountedFolder(busy=True, leftovers=("2 commands use it",))
        if self.there.pop((session, name), None) is not None:
            self.trace.append(f"unmount {name}")
        return UnmountedFolder(busy=busy, leftovers=("2 commands use it",) if busy else ())

    async def start_worker(self, kind: WorkerKind, session: str | None = None, /) -> WorkerHandle:
        raise AssertionError("folders need no worker")

    async def kill_worker(self, worker: int, /) -> None:
        raise AssertionError("folders need no worker")

    async def own_mount(self, path: str, *, owned: bool) -> None:
        raise AssertionError("folders own no mount")

    def close(self, session: str) -> None:
        for key in [key for key in self.there if key[0] == session]:
            del self.there[key]

    def of(self, session: str = "bob") -> dict[str, str]:
        """What is mounted: name → mode."""
        return {name: request.mode for (each, name), request in self.there.items() if each == session}


class FakeStages:
    """Implements `ports.StagePort`."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.error: CoworkError | None = None

    async def prepare(self, session: str, folder: str, source: tuple[bytes, bytes], /) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.there[session, folder] = source
        return f"/state/stages/{session}/{folder}".encode()

    async def forget(self, session: str, folder: str | None, /) -> None:
        await trio.lowlevel.checkpoint()
        for key in [key for key in self.there if key[0] == session and folder in (None, key[1])]:
            del self.there[key]


class FakeGuard:
    """Implements `ports.GuardPort`: who is watched, and by which rule."""

    def __init__(self, trace: list[str]) -> None:
        self.trace = trace
        self.watched: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.rules: dict[tuple[str, str], tuple[str, bool]] = {}
        self.error: CoworkError | None = None

    async def watch(self, session: str, folder: str, mounted: MountedFolder, source: bytes, mode: str, /) -> None:
        await trio.lowlevel.checkpoint()
        self.watched[session, folder] = (source, mode)

    async def set_mode(self, session: str, folder: str, mode: str, ask: bool, /) -> None:
        await trio.lowlevel.checkpoint()
        assert (session, folder) in self.watched
        if self.error is not None:
            raise self.error
        self.trace.append(f"rule {folder} {mode}{' ask' if ask else ''}")
        self.rules[session, folder] = (mode, ask)

    def unwatch(self, session: str, folder: str, /) -> None:
        self.watched.pop((session, folder), None)
