"""Who is whose payload, when its exec succeeded, and how exactly it ended.

Where the process connector can be had it tells all three. Else bubblewrap tells its init's pid, `/proc/INIT/task/INIT/children` names
the payload, and its exec is seen by polling `/proc/PAYLOAD/exe` from 1 ms up to 50 ms apart; the exact status is then unknown and inferred.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from coworkd.launcher.process import Process
from coworkd.system.proc_connector import Exec, ExitStatus, Fork, Overflow, ProcConnector, ProcEvent

_FIRST_POLL_S = 0.001
_LAST_POLL_S = 0.05


class ConnectorWatch:
    """Facts from the process connector."""

    def __init__(self, connector: ProcConnector) -> None:
        self._connector = connector
        self._by_monitor: dict[int, Process] = {}
        self._by_init: dict[int, Process] = {}
        self._by_payload: dict[int, Process] = {}
        self._unseen = PollingWatch()
        """Processes whose fork or exec may be among events that the kernel dropped."""

    def fileno(self) -> int:
        return self._connector.fileno()

    def add(self, process: Process) -> None:
        self._by_monitor[process.monitor_pid] = process

    def discard(self, process: Process) -> None:
        self._by_monitor.pop(process.monitor_pid, None)
        self._unseen.discard(process)
        for table, pid in ((self._by_init, process.init_pid), (self._by_payload, process.payload_pid)):
            if pid is not None:
                table.pop(pid, None)

    def poll(self) -> set[Process]:
        """Hand every waiting fact to its process; returns those that learned something."""
        taken = [self._take(event) for event in self._connector.read()]
        touched = {process for process in taken if process is not None}
        for process in self._unseen.poll_due():
            touched.add(process)
            if process.payload_pid is not None:
                self._by_payload[process.payload_pid] = process
        return touched

    def next_poll_s(self) -> float | None:
        return self._unseen.next_poll_s()

    def _take(self, event: ProcEvent) -> Process | None:
        if isinstance(event, Overflow):
            for known in self._by_monitor.values():
                if not known.executed:
                    self._unseen.add(known)
        if isinstance(event, Fork):
            return self._take_fork(event)
        if isinstance(event, Exec):
            process = self._by_payload.get(event.pid)
            if process is not None and not process.request.tty:
                process.learn_exec()
            return process
        if isinstance(event, ExitStatus):
            process = self._by_payload.get(event.pid)
            if process is not None:
                process.payload_status = event.status
            return process
        return None

    def _take_fork(self, event: Fork) -> Process | None:
        process = self._by_monitor.get(event.parent)
        # The status pipe may have told the init's pid a moment before.
        if process is not None and process.init_pid in (None, event.child):
            process.learn_init(event.child)
            self._by_init[event.child] = process
            return process
        process = self._by_init.get(event.parent)
        if process is not None and process.payload_pid is None:
            process.learn_payload(event.child)
            self._by_payload[event.child] = process
            return process
        return None


class PollingWatch:
    """Facts from /proc, where there is no connector."""

    def __init__(self) -> None:
        self._waiting: dict[int, Process] = {}
        self._interval_s = _FIRST_POLL_S
        self._due = 0.0

    def fileno(self) -> int:
        return -1

    def add(self, process: Process) -> None:
        self._waiting[process.monitor_pid] = process
        self._interval_s = _FIRST_POLL_S
        self._due = time.monotonic() + self._interval_s

    def discard(self, process: Process) -> None:
        self._waiting.pop(process.monitor_pid, None)

    def poll(self) -> set[Process]:
        """Look at every process whose exec was not seen yet; returns those that were looked at."""
        looked = set(self._waiting.values())
        for process in looked:
            _look(process)
            if process.executed and process.payload_pid is not None:
                self.discard(process)
        self._interval_s = min(self._interval_s * 2, _LAST_POLL_S)
        self._due = time.monotonic() + self._interval_s
        return looked

    def poll_due(self) -> set[Process]:
        """`poll`, if its time has come."""
        return self.poll() if self.next_poll_s() == 0 else set()

    def next_poll_s(self) -> float | None:
        return max(0.0, self._due - time.monotonic()) if self._waiting else None


Watch = ConnectorWatch | PollingWatch


def open_watch() -> tuple[Watch, str | None]:
    """The best watch there is, and why it is not the connector if it is not."""
    try:
        return ConnectorWatch(ProcConnector()), None
    except OSError as error:
        return PollingWatch(), f"no process connector ({error.strerror}): exact exit statuses are inferred"


def _look(process: Process) -> None:
    process.ask_status()
    if process.init_pid is None:
        return
    try:
        if process.payload_pid is None:
            for pid in _children(process.init_pid):
                process.learn_payload(pid)
                break
        if process.payload_pid is not None and not process.request.tty:
            own = os.readlink(f"/proc/{process.init_pid}/exe")
            if os.readlink(f"/proc/{process.payload_pid}/exe") != own:
                process.learn_exec()
    except (FileNotFoundError, ProcessLookupError):
        return


def _children(pid: int) -> Iterable[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
