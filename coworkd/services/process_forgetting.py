"""Letting ended processes go: when somebody says so, when they are kept too long, when there are too many.

Rules
- An ended process that somebody reads, or may come back for, does not have to go for its bytes alone as long as those that are kept have
  room in memory (`process_kept`).
- One that has to go leaves those who read it the rest and the exit first, the last `_PARTING_LIMIT` of them; those before them leave the
  exit alone, and say what is gone. No link that lives misses an exit.
- The launcher forgets it, too, once its end is recorded: at once where it is already, else `process_ending` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable

from coworkd.model.errors import LimitExceeded
from coworkd.model.ports import LauncherPort
from coworkd.services.process_ending import Ender
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_table import ProcessTable

_PARTING_LIMIT = 64
"""A link that takes nothing must not make room for ever more: past so many the output of the one that had to go first goes."""
_TELLING_LIMIT = 1024
"""Past so many the links that have not taken how the first of them ended are told so, and ended."""


class Forgetter:
    """Takes processes out of the table. Starts its tasks by `later`."""

    def __init__(
        self, *, table: ProcessTable, launcher: LauncherPort, ender: Ender, later: Callable[..., None]
    ) -> None:
        self._table = table
        self._launcher = launcher
        self._ender = ender
        self._later = later

    def forget(self, process: LiveProcess, *, when_read: bool = False) -> None:
        """Nobody may ask for it any more, and what it holds is let go: at once, or once those who read it have all. One that was
        forgotten is passed over.
        """
        if self._table.remove(process):
            self._launcher.unwatch(process.id)
            if when_read:
                process.close_when_read()
            else:
                process.close()
            process.forgotten = True
            if process.recorded.is_set() and not process.unlogged:
                self._later(self._ender.forget, process)

    def forget_when_read(self, processes: list[LiveProcess]) -> None:
        """Forget those that have ended. Those who read them have the rest, as far as there is room for it, and the exit."""
        for process in processes:
            self.forget(process, when_read=True)
        self._table.part(processes)
        for process in self._table.parting_before(_PARTING_LIMIT):
            process.close_but_end()
        for process in self._table.parting_before(_TELLING_LIMIT):
            process.give_up_readers(
                LimitExceeded(
                    f"{_TELLING_LIMIT} commands have ended since process {process.id}, how that ended is still not read here:"
                    " connect again, and read what is attached",
                    process=process.id,
                    limit=_TELLING_LIMIT,
                )
            )
