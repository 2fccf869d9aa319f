"""The share worker, from coworkd's side: started by the launcher for one mount, and let go, within a deadline."""

from __future__ import annotations

import contextlib

import msgspec
import trio

from coworkd.model import share
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.system.worker_link import ask_once

DEADLINE_S = 10.0
_decoder: msgspec.msgpack.Decoder[share.Answer] = msgspec.msgpack.Decoder(share.Answer)


class ShareWorker:
    """Implements `services.share.SharePort`."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def mount(self, ask: share.MountShare, /) -> share.Answer:
        """Raises `Unavailable` where nobody is there to do it, or it takes too long."""
        handle = await self._launcher.start_worker("share")
        try:
            return await ask_once(handle.socket, ask, decoder=_decoder, within_s=DEADLINE_S)
        except trio.TooSlowError as error:
            with contextlib.suppress(CoworkError):
                await self._launcher.kill_worker(handle.worker)
            raise Unavailable(
                f"mounting the share took more than {DEADLINE_S:g} s: its host does not answer"
            ) from error
        except ConnectionResetError as error:
            raise Unavailable(f"the share cannot be mounted: {error.strerror}; the launcher's log says why") from error

    async def own(self, mount_point: str, /) -> None:
        """From now on it is unmounted when the launcher ends."""
        await self._launcher.own_mount(mount_point, owned=True)
