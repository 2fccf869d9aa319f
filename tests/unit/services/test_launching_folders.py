"""The folders' and workers' side of the launcher's client, against answers that the test makes up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from coworkd.model import launch
from coworkd.model.errors import InvalidState, MountFailed, Unavailable
from coworkd.model.ports import FolderLauncherPort, MountedFolder, UnmountedFolder
from coworkd.services.launching_folders import LauncherFolders
from coworkd.services.launching_refusals import raise_refusal
from tests.unit.services.process_house import in_trio

MOUNT = launch.MountFolder(id=0, session="bob", name="work", root=b"/", source=b"srv", mode="rw")


class FakeAsk:
    """Answers what it is told to, with `count` descriptors."""

    def __init__(self, answer: launch.Answer, count: int = 0) -> None:
        self.answer = answer
        self.fds = [os.memfd_create("sent") for _ in range(count)]
        self.asked: list[launch.Request] = []

    async def __call__(
        self,
        request: launch.Request,
        kind: type[Any],
        fds: tuple[int, ...] = (),
        on_refused: Callable[[launch.Refused], NoReturn] = raise_refusal,
    ) -> tuple[Any, list[int]]:
        self.asked.append(request)
        if isinstance(self.answer, launch.Refused):
            on_refused(self.answer)
        assert isinstance(self.answer, kind)
        return self.answer, self.fds

    def launcher(self) -> FolderLauncherPort:
        return LauncherFolders(self, generation=lambda: 4)

    def all_closed(self) -> bool:
        return not any(os.path.exists(f"/proc/self/fd/{fd}") for fd in self.fds)


@in_trio
async def test_a_guarded_folder_comes_with_its_socket() -> None:
    ask = FakeAsk(launch.FolderMounted(id=1, mounted_as="guarded", degraded=("slow",)), 1)
    assert await ask.launcher().mount_folder(MOUNT) == MountedFolder("guarded", ("slow",), ask.fds[0])
    assert ask.asked == [MOUNT]
    assert ask.launcher().generation == 4
    os.close(ask.fds[0])


@in_trio
async def test_any_other_comes_without() -> None:
    ask = FakeAsk(launch.FolderMounted(id=1, mounted_as="idmapped"))
    assert await ask.launcher().mount_folder(MOUNT) == MountedFolder("idmapped", (), None)


@pytest.mark.parametrize(("mounted_as", "count"), [("guarded", 0), ("guarded", 2), ("bind", 1)])
def test_descriptors_that_do_not_belong_are_closed(mounted_as: Any, count: int) -> None:
    @in_trio
    async def check() -> None:
        ask = FakeAsk(launch.FolderMounted(id=1, mounted_as=mounted_as), count)
        with pytest.raises(Unavailable, match="descriptors"):
            await ask.launcher().mount_folder(MOUNT)
        assert ask.all_closed()

    check()


@in_trio
async def test_unmounting_tells_what_is_left() -> None:
    ask = FakeAsk(launch.FolderUnmounted(id=1, busy=True, leftovers=("vim",)))
    assert await ask.launcher().unmount_folder("bob", "work", lazy=False) == UnmountedFolder(True, ("vim",))
    assert ask.asked == [launch.UnmountFolder(id=0, session="bob", name="work", lazy=False)]


@in_trio
async def test_a_worker_comes_with_its_socket() -> None:
    ask = FakeAsk(launch.WorkerStarted(id=1, worker=7, pid=99), 1)
    handle = await ask.launcher().start_worker("files", "bob")
    assert (handle.worker, handle.pid, handle.socket) == (7, 99, ask.fds[0])
    assert ask.asked == [launch.StartWorker(id=0, kind="files", session="bob")]
    os.close(handle.socket)


@in_trio
async def test_the_small_verbs_send_their_words() -> None:
    ask = FakeAsk(launch.Done(id=1))
    await ask.launcher().kill_worker(7)
    await ask.launcher().own_mount("/sessions", owned=True)
    assert ask.asked == [launch.KillWorker(id=0, worker=7), launch.OwnMount(id=0, path=b"/sessions", owned=True)]


@in_trio
async def test_refusals_are_errors_of_their_verb() -> None:
    refused = FakeAsk(launch.Refused(id=1, stage="probe", errno=errno.ESTALE, message="stale")).launcher()
    with pytest.raises(MountFailed, match="stale"):
        await refused.mount_folder(MOUNT)
    with pytest.raises(Unavailable, match="stale"):
        await refused.start_worker("disk")
    closed = FakeAsk(launch.Refused(id=1, stage="session", errno=errno.ESRCH, message="not open")).launcher()
    with pytest.raises(InvalidState, match="not open"):
        await closed.mount_folder(MOUNT)
