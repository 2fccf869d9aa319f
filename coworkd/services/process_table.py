"""The table of processes: who has which id, who still runs, who has to go.

Rules
- An id names one process from when it is reserved until it is forgotten.
- A one-shot that has ended is not kept: its caller has the answer, or is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from coworkd.config import FinishedConfig
from coworkd.model.errors import AlreadyExists, LimitExceeded, NotFound
from coworkd.services.process_kept import KeptProcesses
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_request import ONE_SHOT_PREFIX


class ProcessTable:
    """All processes there are."""

    def __init__(
        self,
        *,
        running_limit: int,
        finished: FinishedConfig,
        awaited_bytes: int,
        awaited: Callable[[LiveProcess], bool],
    ) -> None:
        """`awaited` says of one that has ended whether somebody reads it, or may come back for it: those stay while they all have no more
        than `awaited_bytes`.
        """
        self._running_limit = running_limit
        self._processes: dict[str, LiveProcess] = {}
        self._unkept: dict[str, LiveProcess] = {}
        """Those that are not kept after their end: nearly all of them run, and they are few."""
        self._kept = KeptProcesses(finished, awaited_bytes=awaited_bytes)
        self._awaited = awaited
        self.parting: list[LiveProcess] = []
        """Those that were taken out and may still be read; the first went first."""

    def __contains__(self, id: str) -> bool:
        return id in self._processes

    def find(self, id: str) -> LiveProcess:
        """Raises `NotFound`."""
        process = self._processes.get(id)
        if process is None:
            raise NotFound(f"there is no process {id!r}: it was forgotten, or never was", process=id)
        return process

    def where(self, wanted: Callable[[LiveProcess], bool] = lambda process: True) -> list[LiveProcess]:
        """Those that are wanted, in the order of their ids' making."""
        return [process for process in self._processes.values() if wanted(process)]

    def find_by_ancestor(self, pid: int) -> LiveProcess | None:
        """The one that this is, or in whose sandbox everything has this ancestor."""
        return next(
            (
                each
                for each in self._unkept.values()
                if pid in (each.monitor_pid, each.init_pid, each.pid) and each.running
            ),
            None,
        )

    def reserve(self, id: str | None, *, one_shot: bool) -> str:
        """An id that is free, `id` if that is given. Raises `AlreadyExists`, or `LimitExceeded` where too many run."""
        if id is not None and id in self._processes:
            raise AlreadyExists(f"process {id} exists already; choose another id", process=id)
        running = len(self._unkept)
        if running >= self._running_limit:
            raise LimitExceeded(
                f"{running} commands are running, no more are allowed at once", limit=self._running_limit
            )
        return id or self._fresh_id(ONE_SHOT_PREFIX if one_shot else "p")

    def add(self, process: LiveProcess) -> None:
        self._processes[process.id] = self._unkept[process.id] = process

    def ended(self, process: LiveProcess) -> list[LiveProcess]:
        """`process` has ended; returns those that have to be forgotten for it."""
        if process.one_shot:
            return []
        self._unkept.pop(process.id, None)
        self._kept.add(process.id, now_s=trio.current_time(), kept_bytes=process.kept_bytes)
        return self.surplus()

    def surplus(self) -> list[LiveProcess]:
        """Those that are kept too long, or are too many."""
        gone = self._kept.surplus(trio.current_time(), lambda id: self._awaited(self._processes[id]))
        return [self._processes[id] for id in gone]

    def remove(self, process: LiveProcess) -> bool:
        """Take it out; False where it was out already."""
        self._kept.discard(process.id)
        self._unkept.pop(process.id, None)
        return self._processes.pop(process.id, None) is not None

    def part(self, processes: list[LiveProcess]) -> None:
        """These were taken out and go when they are read."""
        self.parting = [process for process in (*self.parting, *processes) if not process.closed]

    def parting_before(self, last: int) -> list[LiveProcess]:
        """Those of `parting` that went before the last so many."""
        return self.parting[: max(0, len(self.parting) - last)]

    def state_counts(self) -> dict[str, int]:
        """How many processes are in each state."""
        counts = {"starting": 0, "running": 0, "exited": 0}
        for process in self._processes.values():
            counts[process.state] += 1
        return counts

    def _fresh_id(self, prefix: str) -> str:
        while (id := prefix + os.urandom(5).hex()) in self._processes:
            continue
        return id
