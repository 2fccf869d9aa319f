"""The share worker, from coworkd's side: started by the launcher for one mount, and let go, within a deadline."""

from __future__ import annotations

import contextlib
import os

import msgspec
import trio

from coworkd.model import share
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.system.worker_link import WorkerLink

DEADLINE_S = 10.0
_decoder: msgspec.msgpack.Decoder[share.Answer] = msgspec.msgpack.Decoder(share.Answer)


class ShareWorker:
    """Implements `services.share.SharePort`."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def mount(self, ask: share.MountShare, /) -> share.Answer:
        """Raises `Unavailable` where nobody is there to do it, or it takes too long."""
        handle = await self._launcher.start_worker("share")
        link = WorkerLink(handle.socket, decoder=_decoder)
        answered: tuple[share.Answer, list[int]] | None = None
        with trio.move_on_after(DEADLINE_S) as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(link.serve)
                try:
                    with contextlib.suppress(ConnectionResetError):
                        answered = await link.ask(ask)
                finally:
                    link.close()
        if scope.cancelled_caught:
            with contextlib.suppress(CoworkError):
                await self._launcher.kill_worker(handle.worker)
            raise Unavailable(f"mounting the share took more than {DEADLINE_S:g} s: its host does not answer")
        if answered is None:
            raise Unavailable(f"the share worker does not answer, {link.why}; the launcher's log says why")
        answer, fds = answered
        for fd in fds:
            os.close(fd)
        return answer

    async def own(self, mount_point: str, /) -> None:
        """From now on it is unmounted when the launcher ends."""
        await self._launcher.own_mount(mount_point, owned=True)
