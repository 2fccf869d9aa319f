"""Every bwrap from its order to its end: the one place that waits for children, and where facts of them come together.

Rules
- One reaper: `wait4(-1)` here and nowhere else. Facts of the connector are taken before each reaping, so that a reaped pid is
  always known by then.
- A bwrap's owner hears of its news by `on_news`, once a round. One that has gone is let go of here, after its owner has heard of it.
- What one round costs does not grow with how many there are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.exec_watch import open_watch
from coworkd.launcher.readers import Readers

_LOOK_AGAIN_S = 0.002


class Reaper:
    """Owns no bwrap, but closes those that have gone."""

    def __init__(self, readers: Readers, *, on_reaped: Callable[[int], None]) -> None:
        """`on_reaped` is told of each child that is gone, whoever's it was."""
        self._readers = readers
        self._on_reaped = on_reaped
        self._watch, self.degraded = open_watch()
        """Why the exact end of a command cannot be told, or None."""
        self._by_monitor: dict[int, Bwrap] = {}
        self._by_init: dict[int, Bwrap] = {}
        self._young: set[Bwrap] = set()
        """Those whose init was not seen yet."""
        self._orphaned: set[Bwrap] = set()
        self._lingering: set[Bwrap] = set()
        """Those that have gone, but not from their cgroups: each is tried again with the next facts."""
        if self._watch.fileno() >= 0:
            readers.register(self._watch.fileno(), self.take_facts)

    def expect(self) -> None:
        """A bubblewrap is about to be ordered. Raises `OSError`."""
        if self._watch.expect():
            self._heed()

    def rest(self) -> None:
        """The answers are out: there is time."""
        with contextlib.suppress(OSError):  # it hears more than it has to, for a while
            if self._watch.rest():
                self._heed()

    def _heed(self) -> None:
        """Of a command's end alone nobody is woken: bubblewrap's follows, and with that the facts are taken."""
        if self._watch.fileno() >= 0:
            self._readers.heed(self._watch.fileno(), wanted=self._watch.wakes)

    def add(self, bwrap: Bwrap) -> None:
        """From its order on; once more for one that has waited changes nothing."""
        self._by_monitor[bwrap.monitor_pid] = bwrap
        if bwrap.init_pid is None:
            self._young.add(bwrap)
        self._watch.add(bwrap)

    def next_due(self) -> float | None:
        """When (monotonic) facts are to be taken, whatever comes."""
        return self._watch.next_due()

    def take_due(self) -> None:
        """`take_facts`, if that is now."""
        due = self._watch.next_due()
        if due is not None and time.monotonic() >= due:
            self.take_facts()

    def take_facts(self) -> None:
        """Connector, status pipes, then the dead: in that order."""
        touched = self._watch.poll()
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            touched |= self._watch.poll()
            self._on_reaped(pid)
            bwrap = self._find(pid)
            if bwrap is not None and bwrap.learn_reaped(pid, status, usage):
                touched.add(bwrap)
        touched |= self._find_abandoned(touched)
        self._lingering = {bwrap for bwrap in self._lingering if not bwrap.let_go()}
        for bwrap in touched:
            self._tell(bwrap)

    def wait_gone(self, bwraps: list[Bwrap], limit_s: float) -> None:
        """Take facts until all of them are gone, `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        while not all(bwrap.gone for bwrap in bwraps) and time.monotonic() < deadline:
            self.take_facts()
            time.sleep(_LOOK_AGAIN_S)

    def wait_born(self, group: str, limit_s: float) -> None:
        """Take facts until every bubblewrap that was ordered in a cgroup below `group` runs, `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and any(
            (bwrap.cgroup_path or "").startswith(f"{group}/") for bwrap in self._young
        ):
            self.take_facts()
            time.sleep(_LOOK_AGAIN_S)

    def _find(self, pid: int) -> Bwrap | None:
        """Whose monitor or init `pid` is. An init that nobody has told of yet stands in its status pipe by now."""
        bwrap = self._by_monitor.get(pid) or self._by_init.get(pid)
        if bwrap is not None:
            return bwrap
        for young in self._young:
            young.ask_status()
            if young.init_pid == pid:
                return young
        return None

    def _find_abandoned(self, touched: set[Bwrap]) -> set[Bwrap]:
        """Those whose init is not ours to wait for."""
        for bwrap in touched:
            if bwrap.monitor_status is not None:
                bwrap.hear_out()
                if self._by_monitor.get(bwrap.monitor_pid) is bwrap:
                    del self._by_monitor[bwrap.monitor_pid]
            if bwrap.init_pid is not None:
                self._by_init[bwrap.init_pid] = bwrap
                self._young.discard(bwrap)
            if bwrap.orphaned:
                self._orphaned.add(bwrap)
        found = {bwrap for bwrap in self._orphaned if bwrap.learn_orphaned()}
        self._orphaned = {bwrap for bwrap in self._orphaned if bwrap.orphaned}
        for bwrap in self._orphaned:
            bwrap.end_abandoned()
        return found

    def _tell(self, bwrap: Bwrap) -> None:
        bwrap.on_news()
        if bwrap.gone:
            if bwrap.init_pid is not None and self._by_init.get(bwrap.init_pid) is bwrap:
                del self._by_init[bwrap.init_pid]
            self._young.discard(bwrap)
            self._watch.discard(bwrap)
            if not bwrap.let_go():
                self._lingering.add(bwrap)
