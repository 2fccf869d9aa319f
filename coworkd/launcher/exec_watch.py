"""Who is whose payload, when its exec succeeded, and how exactly it ended.

Where the process connector can be had it tells all three. Else bubblewrap tells its init's pid, `/proc/INIT/task/INIT/children` names
the payload, and its exec is seen by polling `/proc/PAYLOAD/exe` from 1 ms up to 50 ms apart; the exact status is then unknown and
inferred. Of a command that a shim executes, the shim's own pipe tells the exec, not this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from coworkd.launcher.bwrap import Bwrap
from coworkd.system.proc_connector import EXITS_LIMIT, Exec, ExitStatus, Fork, Overflow, ProcConnector, ProcEvent

_FIRST_POLL_S = 0.001
_LAST_POLL_S = 0.05


class ConnectorWatch:
    """Facts from the process connector."""

    def __init__(self, connector: ProcConnector) -> None:
        self._connector = connector
        self._by_monitor: dict[int, Bwrap] = {}
        self._by_init: dict[int, Bwrap] = {}
        self._by_payload: dict[int, Bwrap] = {}
        self._unborn: set[Bwrap] = set()
        """Those whose births, or the exec that says that the command runs, are still to come."""
        self._unseen = PollingWatch()
        """Bwraps whose fork or exec may be among events that the kernel dropped."""
        self._hears_all = True
        self.wakes = True
        """Whether there may come what nothing else tells of, or so much that it must be taken at once."""

    def fileno(self) -> int:
        return self._connector.fileno()

    def expect(self) -> bool:
        """One is about to be ordered: its first fork must not be missed. Whether that changes what is heard. Raises `OSError`."""
        if self._hears_all:
            return False
        self._connector.hear_all()
        self._hears_all = self.wakes = True
        return True

    def add(self, bwrap: Bwrap) -> None:
        """What was handed a command while it waited is known already."""
        if self._by_monitor.get(bwrap.monitor_pid) is not bwrap:
            self._by_monitor[bwrap.monitor_pid] = bwrap
            self._unborn.add(bwrap)

    def discard(self, bwrap: Bwrap) -> None:
        self._unseen.discard(bwrap)
        self._unborn.discard(bwrap)
        for table, pid in (
            (self._by_monitor, bwrap.monitor_pid),
            (self._by_init, bwrap.init_pid),
            (self._by_payload, bwrap.payload_pid),
        ):
            if pid is not None and table.get(pid) is bwrap:  # else the number was given to another meanwhile
                del table[pid]

    def poll(self) -> set[Bwrap]:
        """Hand every waiting fact to its bwrap; returns those that learned something."""
        taken = [self._take(event) for event in self._connector.read()]
        touched = {bwrap for bwrap in taken if bwrap is not None}
        for bwrap in self._unseen.poll_due():
            touched.add(bwrap)
            if bwrap.payload_pid is not None:
                self._by_payload[bwrap.payload_pid] = bwrap
        for bwrap in touched:
            if bwrap.executed or (bwrap.shimmed and bwrap.payload_pid is not None):
                self._unborn.discard(bwrap)
        return touched

    def rest(self) -> bool:
        """Nothing is waited for at this moment: hear no more than there is to hear. As `expect`. Raises `OSError`."""
        if not self._hears_all or self._unborn:
            return False
        self._connector.hear_exits(self._by_payload)
        self._hears_all = False
        self.wakes = len(self._by_payload) > EXITS_LIMIT
        return True

    def next_due(self) -> float | None:
        return self._unseen.next_due()

    def _take(self, event: ProcEvent) -> Bwrap | None:
        if isinstance(event, Overflow):
            for known in self._by_monitor.values():
                if not known.executed:
                    self._unseen.add(known)
        if isinstance(event, Fork):
            return self._take_fork(event)
        if isinstance(event, Exec):
            bwrap = self._by_payload.get(event.pid)
            if bwrap is not None and not bwrap.shimmed:
                bwrap.learn_exec()
            return bwrap
        if isinstance(event, ExitStatus):
            bwrap = self._by_payload.get(event.pid)
            if bwrap is not None:
                bwrap.payload_status = event.status
            return bwrap
        return None

    def _take_fork(self, event: Fork) -> Bwrap | None:
        bwrap = self._by_monitor.get(event.parent)
        # The status pipe may have told the init's pid a moment before.
        if bwrap is not None and bwrap.init_pid in (None, event.child):
            bwrap.learn_init(event.child)
            self._by_init[event.child] = bwrap
            return bwrap
        bwrap = self._by_init.get(event.parent)
        if bwrap is not None and bwrap.payload_pid is None:
            bwrap.learn_payload(event.child)
            self._by_payload[event.child] = bwrap
            return bwrap
        return None


class PollingWatch:
    """Facts from /proc, where there is no connector."""

    wakes = False

    def __init__(self) -> None:
        self._waiting: dict[int, Bwrap] = {}
        self._interval_s = _FIRST_POLL_S
        self._due = 0.0

    def fileno(self) -> int:
        return -1

    def expect(self) -> bool:
        """It asks, and hears nothing."""
        return False

    def rest(self) -> bool:
        """As `expect`."""
        return False

    def add(self, bwrap: Bwrap) -> None:
        self._waiting[bwrap.monitor_pid] = bwrap
        self._interval_s = _FIRST_POLL_S
        self._due = time.monotonic() + self._interval_s

    def discard(self, bwrap: Bwrap) -> None:
        if self._waiting.get(bwrap.monitor_pid) is bwrap:
            del self._waiting[bwrap.monitor_pid]

    def poll(self) -> set[Bwrap]:
        """Look at every process whose exec was not seen yet; returns those that were looked at."""
        looked = set(self._waiting.values())
        for bwrap in looked:
            _look(bwrap)
            if bwrap.payload_pid is not None and (bwrap.executed or bwrap.shimmed):
                self.discard(bwrap)
        self._interval_s = min(self._interval_s * 2, _LAST_POLL_S)
        self._due = time.monotonic() + self._interval_s
        return looked

    def poll_due(self) -> set[Bwrap]:
        """`poll`, if its time has come."""
        return self.poll() if self._waiting and time.monotonic() >= self._due else set()

    def next_due(self) -> float | None:
        return self._due if self._waiting else None


Watch = ConnectorWatch | PollingWatch


def open_watch() -> tuple[Watch, str | None]:
    """The best watch there is, and why it is not the connector if it is not."""
    try:
        return ConnectorWatch(ProcConnector()), None
    except OSError as error:
        return PollingWatch(), f"no process connector ({error.strerror}): exact exit statuses are inferred"


def _look(bwrap: Bwrap) -> None:
    bwrap.ask_status()
    if bwrap.init_pid is None:
        return
    try:
        if bwrap.payload_pid is None:
            for pid in _children(bwrap.init_pid):
                bwrap.learn_payload(pid)
                break
        if bwrap.payload_pid is not None and not bwrap.shimmed:
            own = os.readlink(f"/proc/{bwrap.init_pid}/exe")
            if os.readlink(f"/proc/{bwrap.payload_pid}/exe") != own:
                bwrap.learn_exec()
    except (FileNotFoundError, ProcessLookupError):
        return


def _children(pid: int) -> Iterable[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
