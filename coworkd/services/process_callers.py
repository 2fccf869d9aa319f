"""Who waits for a one-shot: the links of running `process.run` calls, so that what nobody waits for can be ended.

Rules
- A caller that gave no `request_id` cannot come back for the answer: its one-shot is ended with its link.
- One that did may: its command goes on for `RETURN_S`, and for as long as somebody asks again by that id.

`LinkPort.on_close` cannot be taken back, so each link is asked once, however many commands it runs.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from coworkd.model.ports import LinkPort
from coworkd.services.process_live import LiveProcess

RETURN_S = 30.0


class Callers:
    """Link → its one-shots that are under way, each with the id its caller may come back by."""

    def __init__(self, vanished: Callable[[LiveProcess], None], later: Callable[..., None]) -> None:
        """`vanished` is called for each one-shot whose caller has gone for good; `later` starts a task."""
        self._vanished = vanished
        self._later = later
        self._waiting: dict[LinkPort, dict[LiveProcess, str | None]] = {}
        self._asked_again: Callable[[str], bool] = lambda request_id: False

    def attach(self, asked_again: Callable[[str], bool]) -> None:
        """`asked_again` tells whether another link waits for the `process.run` of that `request_id` now."""
        self._asked_again = asked_again

    def add(self, link: LinkPort, process: LiveProcess, request_id: str | None = None) -> None:
        if link not in self._waiting:
            self._waiting[link] = {process: request_id}
            link.on_close(lambda: self._closed(link))
        else:
            self._waiting[link][process] = request_id

    def discard(self, link: LinkPort, process: LiveProcess) -> None:
        self._waiting.get(link, {}).pop(process, None)

    def _closed(self, link: LinkPort) -> None:
        for process, request_id in self._waiting.pop(link, {}).items():
            if request_id is None:
                self._vanished(process)
            else:
                self._later(self._await_return, process, request_id)

    async def _await_return(self, process: LiveProcess, request_id: str) -> None:
        with trio.move_on_after(RETURN_S):
            await process.over.wait()
        while not process.over.is_set() and self._asked_again(request_id):
            with trio.move_on_after(RETURN_S):
                await process.over.wait()
        if not process.over.is_set():
            self._vanished(process)
