"""The `tool` worker, from coworkd: started for one fetch, asked once, and killed where it does not answer in time (a share that hangs)."""

from __future__ import annotations

import contextlib
import os

import msgspec
import trio

from coworkd.model.errors import DeadlineExceeded, Unavailable
from coworkd.model.ports import FolderLauncherPort
from coworkd.model.tool import FetchTool, ToolAnswer
from coworkd.system.worker_link import ask_once

_decoder: msgspec.msgpack.Decoder[ToolAnswer] = msgspec.msgpack.Decoder(ToolAnswer)


class Fetching:
    """Who brings a tool. Nothing stays between two fetches."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher

    async def fetch(self, request: FetchTool, *, timeout_s: float) -> ToolAnswer:
        """Raises `DeadlineExceeded`, `Unavailable`; the worker is gone, or killed, either way."""
        handle = await self._launcher.start_worker("tool")
        answered = False
        try:
            answer = await ask_once(handle.socket, request, decoder=_decoder, within_s=timeout_s)
            answered = True
        except trio.TooSlowError as error:
            raise DeadlineExceeded(
                f"the share did not give {os.fsdecode(request.source)!a} within {timeout_s:.0f} s; is the host there?",
                timeout_s=timeout_s,
            ) from error
        except ConnectionResetError as error:
            raise Unavailable(f"the tool was not brought: {error.strerror}; try again") from error
        finally:
            if not answered:
                with trio.CancelScope(shield=True), contextlib.suppress(Unavailable):
                    await self._launcher.kill_worker(handle.worker)
        return answer
