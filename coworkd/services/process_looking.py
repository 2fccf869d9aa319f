"""What is known of processes: for who asks over a link, and for other services.

Nothing is changed here. Who runs is in `process_table`, who ran a moment ago in `process_recent`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from coworkd.model import calls
from coworkd.model.errors import DeadlineExceeded, NotFound
from coworkd.model.process import ExitRecord, ProcessInfo
from coworkd.services.process_list import compose_list
from coworkd.services.process_recent import RecentProcesses
from coworkd.services.process_request import parse_seconds
from coworkd.services.process_table import ProcessTable


class Looker:
    """Looks into the table."""

    def __init__(
        self, *, table: ProcessTable, measured: Callable[[ProcessInfo], Awaitable[ProcessInfo]] | None = None
    ) -> None:
        """`measured` adds what a process takes now; without it nobody measures."""
        self._table = table
        self._measured = measured
        self._recent = RecentProcesses()

    def ended(self, record: ExitRecord, ancestors: tuple[int, ...]) -> None:
        """It has, and is asked for a moment longer."""
        self._recent.add(record, ancestors)

    async def wait(self, params: calls.WaitProcess) -> ExitRecord:
        """The exit record, once there is one. Raises `DeadlineExceeded` after `timeout_s`, which changes nothing."""
        process = self._table.find(params.process)
        timeout_s = float("inf") if params.timeout_s is None else parse_seconds(params.timeout_s, "timeout_s")
        with trio.move_on_after(timeout_s):
            await process.over.wait()
        if not process.over.is_set():
            raise DeadlineExceeded(f"process {process.id} still runs after {timeout_s:g} s", process=process.id)
        if process.record is None:
            raise NotFound(f"process {process.id} could not be started", process=process.id)
        return process.record

    async def get(self, params: calls.ProcessName) -> ProcessInfo:
        """One process, with what it takes now."""
        info = self._table.find(params.process).info()
        return info if self._measured is None else await self._measured(info)

    async def list(self, params: calls.ProcessListParams) -> calls.ProcessList:
        """All processes, or those of one session, oldest first; what is being started included. See `process_list`."""
        found = self._table.where(lambda process: params.session in (None, process.session))
        return compose_list(process.info() for process in found)

    def count(self, session: str, /) -> int:
        """How many processes of `session` run or are being started."""
        return len(self._table.where(lambda process: process.session == session and process.running))

    def find_by_ancestor(self, pid: int, /) -> tuple[str, str] | None:
        """See `ports.CallerDirectory`."""
        process = self._table.find_by_ancestor(pid)
        return self._recent.find_by_ancestor(pid) if process is None else (process.session, process.id)

    def only_one_at(self, session: str, at: float, /) -> str | None:
        """See `ports.CallerDirectory`."""
        ours = self._table.where(lambda process: process.session == session and process.may_act)
        return self._recent.only_one_at(session, at, [(process.id, process.started_at) for process in ours])

    def state_counts(self) -> dict[str, int]:
        """How many processes are in each state."""
        return self._table.state_counts()
