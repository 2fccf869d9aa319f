"""The `tool` worker, from coworkd: started for one fetch, asked once, and killed where it does not answer in time (a share that hangs)."""

from __future__ import annotations

import contextlib
import os

import msgspec
import trio

from coworkd.model.errors import DeadlineExceeded, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.model.tool import FetchTool, ToolAnswer
from coworkd.system.worker_link import WorkerLink

_decoder: msgspec.msgpack.Decoder[ToolAnswer] = msgspec.msgpack.Decoder(ToolAnswer)


class Fetching:
    """Who brings a tool. Nothing stays between two fetches."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def fetch(self, request: FetchTool, *, timeout_s: float) -> ToolAnswer:
        """Raises `DeadlineExceeded`, `Unavailable`; the worker is gone, or killed, either way."""
        handle = await self._launcher.start_worker("tool")
        link = WorkerLink(handle.socket, decoder=_decoder)
        answered: tuple[ToolAnswer, list[int]] | None = None
        late = False
        async with trio.open_nursery() as nursery:
            await nursery.start(link.serve)
            try:
                with trio.move_on_after(timeout_s) as scope, contextlib.suppress(ConnectionResetError):
                    answered = await link.ask(request)
                late = scope.cancelled_caught
            finally:
                link.close()
                if answered is None:
                    with trio.CancelScope(shield=True), contextlib.suppress(Unavailable):
                        await self._launcher.kill_worker(handle.worker)
        # Out here, because a nursery would wrap it.
        if late:
            raise DeadlineExceeded(
                f"the share did not give {os.fsdecode(request.source)!a} within {timeout_s:.0f} s; is the host there?",
                timeout_s=timeout_s,
            )
        if answered is None:
            raise Unavailable(f"the worker that brings tools has ended: {link.why}; try again")
        answer, fds = answered
        for fd in fds:
            os.close(fd)
        return answer
