"""Who is whose payload, when its exec succeeded, and how exactly it ended.

Where the process connector can be had it tells all three. Else bubblewrap tells its init's pid, `/proc/INIT/task/INIT/children` names
the payload, and its exec is seen by polling `/proc/PAYLOAD/exe` from 1 ms up to 50 ms apart; the exact status is then unknown and
inferred. Of a command that a shim executes, the shim's own pipe tells the exec, not this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from coworkd.launcher.bubble import Bubble
from coworkd.system.proc_connector import EXITS_LIMIT, Exec, ExitStatus, Fork, Overflow, ProcConnector, ProcEvent

_FIRST_POLL_S = 0.001
_LAST_POLL_S = 0.05


class ConnectorWatch:
    """Facts from the process connector."""

    def __init__(self, connector: ProcConnector) -> None:
        self._connector = connector
        self._by_monitor: dict[int, Bubble] = {}
        self._by_init: dict[int, Bubble] = {}
        self._by_payload: dict[int, Bubble] = {}
        self._unborn: set[Bubble] = set()
        """Those whose births, or the exec that says that the command runs, are still to come."""
        self._unseen = PollingWatch()
        """Bubbles whose fork or exec may be among events that the kernel dropped."""
        self._hears_all = True
        self.wakes = True
        """Whether there may come what nothing else tells of, or so much that it must be taken at once."""

    def fileno(self) -> int:
        return self._connector.fileno()

    def expect(self) -> None:
        """One is about to be ordered: its first fork must not be missed. Raises `OSError`."""
        if not self._hears_all:
            self._connector.hear_all()
            self._hears_all = self.wakes = True

    def add(self, bubble: Bubble) -> None:
        """What was handed a command while it waited is known already."""
        if self._by_monitor.get(bubble.monitor_pid) is not bubble:
            self._by_monitor[bubble.monitor_pid] = bubble
            self._unborn.add(bubble)

    def discard(self, bubble: Bubble) -> None:
        self._unseen.discard(bubble)
        self._unborn.discard(bubble)
        for table, pid in (
            (self._by_monitor, bubble.monitor_pid),
            (self._by_init, bubble.init_pid),
            (self._by_payload, bubble.payload_pid),
        ):
            if pid is not None and table.get(pid) is bubble:  # else the number was given to another meanwhile
                del table[pid]

    def poll(self) -> set[Bubble]:
        """Hand every waiting fact to its bubble; returns those that learned something."""
        taken = [self._take(event) for event in self._connector.read()]
        touched = {bubble for bubble in taken if bubble is not None}
        for bubble in self._unseen.poll_due():
            touched.add(bubble)
            if bubble.payload_pid is not None:
                self._by_payload[bubble.payload_pid] = bubble
        for bubble in touched:
            if bubble.executed or (bubble.shimmed and bubble.payload_pid is not None):
                self._unborn.discard(bubble)
        return touched

    def rest(self) -> None:
        """Nothing is waited for at this moment: hear no more than there is to hear. Raises `OSError`."""
        if self._hears_all and not self._unborn:
            self._connector.hear_exits(self._by_payload)
            self._hears_all = False
            self.wakes = len(self._by_payload) > EXITS_LIMIT

    def next_poll_s(self) -> float | None:
        return self._unseen.next_poll_s()

    def _take(self, event: ProcEvent) -> Bubble | None:
        if isinstance(event, Overflow):
            for known in self._by_monitor.values():
                if not known.executed:
                    self._unseen.add(known)
        if isinstance(event, Fork):
            return self._take_fork(event)
        if isinstance(event, Exec):
            bubble = self._by_payload.get(event.pid)
            if bubble is not None and not bubble.shimmed:
                bubble.learn_exec()
            return bubble
        if isinstance(event, ExitStatus):
            bubble = self._by_payload.get(event.pid)
            if bubble is not None:
                bubble.payload_status = event.status
            return bubble
        return None

    def _take_fork(self, event: Fork) -> Bubble | None:
        bubble = self._by_monitor.get(event.parent)
        # The status pipe may have told the init's pid a moment before.
        if bubble is not None and bubble.init_pid in (None, event.child):
            bubble.learn_init(event.child)
            self._by_init[event.child] = bubble
            return bubble
        bubble = self._by_init.get(event.parent)
        if bubble is not None and bubble.payload_pid is None:
            bubble.learn_payload(event.child)
            self._by_payload[event.child] = bubble
            return bubble
        return None


class PollingWatch:
    """Facts from /proc, where there is no connector."""

    wakes = False

    def __init__(self) -> None:
        self._waiting: dict[int, Bubble] = {}
        self._interval_s = _FIRST_POLL_S
        self._due = 0.0

    def fileno(self) -> int:
        return -1

    def expect(self) -> None:
        """It asks, and hears nothing."""

    def rest(self) -> None:
        """It asks, and hears nothing."""

    def add(self, bubble: Bubble) -> None:
        self._waiting[bubble.monitor_pid] = bubble
        self._interval_s = _FIRST_POLL_S
        self._due = time.monotonic() + self._interval_s

    def discard(self, bubble: Bubble) -> None:
        if self._waiting.get(bubble.monitor_pid) is bubble:
            del self._waiting[bubble.monitor_pid]

    def poll(self) -> set[Bubble]:
        """Look at every process whose exec was not seen yet; returns those that were looked at."""
        looked = set(self._waiting.values())
        for bubble in looked:
            _look(bubble)
            if bubble.payload_pid is not None and (bubble.executed or bubble.shimmed):
                self.discard(bubble)
        self._interval_s = min(self._interval_s * 2, _LAST_POLL_S)
        self._due = time.monotonic() + self._interval_s
        return looked

    def poll_due(self) -> set[Bubble]:
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


def _look(bubble: Bubble) -> None:
    bubble.ask_status()
    if bubble.init_pid is None:
        return
    try:
        if bubble.payload_pid is None:
            for pid in _children(bubble.init_pid):
                bubble.learn_payload(pid)
                break
        if bubble.payload_pid is not None and not bubble.shimmed:
            own = os.readlink(f"/proc/{bubble.init_pid}/exe")
            if os.readlink(f"/proc/{bubble.payload_pid}/exe") != own:
                bubble.learn_exec()
    except (FileNotFoundError, ProcessLookupError):
        return


def _children(pid: int) -> Iterable[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
