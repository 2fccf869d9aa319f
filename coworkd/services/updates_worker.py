"""The update worker, from coworkd's side: started by the launcher for one errand, asked one thing, and let go, within a deadline.

A disk that hangs holds its worker, not coworkd: past the deadline the worker is killed, and its mount goes with it.
"""

from __future__ import annotations

import contextlib
from typing import Protocol, TypeVar

import msgspec
import trio

from coworkd.model import update
from coworkd.model.errors import CoworkError, DiskFailed, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.system.worker_link import ask_once

DEADLINE_S = 60.0
_decoder: msgspec.msgpack.Decoder[update.Answer] = msgspec.msgpack.Decoder(update.Answer)
_A = TypeVar("_A", update.DiskOffer, update.SlotVerified)


class UpdatePort(Protocol):
    """Who can look at a disk and at slots. Both raise `Unavailable` where nobody is there to do it or it takes too long, `DiskFailed` for
    what the system refused.
    """

    async def look_at_disk(self, ask: update.LookAtDisk, /) -> update.DiskOffer: ...

    async def verify_slot(self, ask: update.VerifySlot, /) -> update.SlotVerified: ...


class UpdateWorker:
    """Implements `UpdatePort` by a worker of the launcher's."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def look_at_disk(self, ask: update.LookAtDisk, /) -> update.DiskOffer:
        return await self._ask(ask, update.DiskOffer)

    async def verify_slot(self, ask: update.VerifySlot, /) -> update.SlotVerified:
        return await self._ask(ask, update.SlotVerified)

    async def _ask(self, request: update.Request, kind: type[_A]) -> _A:
        handle = await self._launcher.start_worker("update")
        try:
            answer = await ask_once(handle.socket, request, decoder=_decoder, within_s=DEADLINE_S)
        except trio.TooSlowError as error:
            with contextlib.suppress(CoworkError):
                await self._launcher.kill_worker(handle.worker)
            raise Unavailable(f"the update disk or the slots do not answer within {DEADLINE_S:g} s") from error
        except ConnectionResetError as error:
            raise Unavailable(f"updates cannot be seen to: {error.strerror}; the launcher's log says why") from error
        return _judge(answer, kind)


def _judge(answer: update.Answer, kind: type[_A]) -> _A:
    if isinstance(answer, update.UpdateFailed):
        raise DiskFailed(answer.message, errno=answer.errno)
    if not isinstance(answer, kind):
        raise Unavailable(f"the update worker answered with {type(answer).__name__}")
    return answer
