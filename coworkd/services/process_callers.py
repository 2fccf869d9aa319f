"""Who waits for a one-shot: the links of running `process.run` calls, so that what nobody waits for can be ended.

`LinkPort.on_close` cannot be taken back, so each link is asked once, however many commands it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from coworkd.model.ports import LinkPort
from coworkd.services.process_live import LiveProcess


class Callers:
    """Link → its one-shots that are under way."""

    def __init__(self, vanished: Callable[[LiveProcess], None]) -> None:
        """`vanished` is called for each one-shot whose link has ended."""
        self._vanished = vanished
        self._waiting: dict[LinkPort, set[LiveProcess]] = {}

    def add(self, link: LinkPort, process: LiveProcess) -> None:
        if link not in self._waiting:
            self._waiting[link] = {process}
            link.on_close(lambda: self._closed(link))
        else:
            self._waiting[link].add(process)

    def discard(self, link: LinkPort, process: LiveProcess) -> None:
        self._waiting.get(link, set()).discard(process)

    def _closed(self, link: LinkPort) -> None:
        for process in self._waiting.pop(link, set()):
            self._vanished(process)
