"""Every bubble from its order to its end: the one place that waits for children, and where facts of them come together.

Rules
- One reaper: `wait4(-1)` here and nowhere else. Facts of the connector are taken before each reaping, so that a reaped pid is
  always known by then.
- A bubble's owner hears of its news by `on_news`, once a round. One that has gone is let go of here, after its owner has heard of it.
- What one round costs does not grow with how many there are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from coworkd.launcher.bubble import Bubble
from coworkd.launcher.exec_watch import open_watch
from coworkd.launcher.readers import Readers

_LOOK_AGAIN_S = 0.002


class Reaper:
    """Owns no bubble, but closes those that have gone."""

    def __init__(self, readers: Readers, *, on_reaped: Callable[[int], None]) -> None:
        """`on_reaped` is told of each child that is gone, whoever's it was."""
        self._readers = readers
        self._on_reaped = on_reaped
        self._watch, self.degraded = open_watch()
        """Why the exact end of a command cannot be told, or None."""
        self._by_monitor: dict[int, Bubble] = {}
        self._by_init: dict[int, Bubble] = {}
        self._young: set[Bubble] = set()
        """Those whose init was not seen yet."""
        self._orphaned: set[Bubble] = set()
        self._lingering: set[Bubble] = set()
        """Those that have gone, but not from their cgroups: each is tried again with the next facts."""
        if self._watch.fileno() >= 0:
            readers.register(self._watch.fileno(), self.take_facts)

    def expect(self) -> None:
        """A bubblewrap is about to be ordered. Raises `OSError`."""
        self._watch.expect()
        self._heed()

    def rest(self) -> None:
        """The answers are out: there is time."""
        with contextlib.suppress(OSError):  # it hears more than it has to, for a while
            self._watch.rest()
            self._heed()

    def _heed(self) -> None:
        """Of a command's end alone nobody is woken: bubblewrap's follows, and with that the facts are taken."""
        if self._watch.fileno() >= 0:
            self._readers.heed(self._watch.fileno(), wanted=self._watch.wakes)

    def add(self, bubble: Bubble) -> None:
        """From its order on; once more for one that has waited changes nothing."""
        self._by_monitor[bubble.monitor_pid] = bubble
        if bubble.init_pid is None:
            self._young.add(bubble)
        self._watch.add(bubble)

    def next_poll_s(self) -> float | None:
        """In how many seconds facts are to be taken, whatever comes."""
        return self._watch.next_poll_s()

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
            bubble = self._find(pid)
            if bubble is not None and bubble.learn_reaped(pid, status, usage):
                touched.add(bubble)
        touched |= self._find_abandoned(touched)
        self._lingering = {bubble for bubble in self._lingering if not bubble.let_go()}
        for bubble in touched:
            self._tell(bubble)

    def wait_gone(self, bubbles: list[Bubble], limit_s: float) -> None:
        """Take facts until all of them are gone, `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        while not all(bubble.gone for bubble in bubbles) and time.monotonic() < deadline:
            self.take_facts()
            time.sleep(_LOOK_AGAIN_S)

    def wait_born(self, group: str, limit_s: float) -> None:
        """Take facts until every bubblewrap that was ordered in a cgroup below `group` runs, `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and any(
            (bubble.cgroup_path or "").startswith(f"{group}/") for bubble in self._young
        ):
            self.take_facts()
            time.sleep(_LOOK_AGAIN_S)

    def _find(self, pid: int) -> Bubble | None:
        """Whose monitor or init `pid` is. An init that nobody has told of yet stands in its status pipe by now."""
        bubble = self._by_monitor.get(pid) or self._by_init.get(pid)
        if bubble is not None:
            return bubble
        for young in self._young:
            young.ask_status()
            if young.init_pid == pid:
                return young
        return None

    def _find_abandoned(self, touched: set[Bubble]) -> set[Bubble]:
        """Those whose init is not ours to wait for."""
        for bubble in touched:
            if bubble.monitor_status is not None:
                bubble.hear_out()
                if self._by_monitor.get(bubble.monitor_pid) is bubble:
                    del self._by_monitor[bubble.monitor_pid]
            if bubble.init_pid is not None:
                self._by_init[bubble.init_pid] = bubble
                self._young.discard(bubble)
            if bubble.orphaned:
                self._orphaned.add(bubble)
        found = {bubble for bubble in self._orphaned if bubble.learn_orphaned()}
        self._orphaned = {bubble for bubble in self._orphaned if bubble.orphaned}
        return found

    def _tell(self, bubble: Bubble) -> None:
        bubble.on_news()
        if bubble.gone:
            if bubble.init_pid is not None and self._by_init.get(bubble.init_pid) is bubble:
                del self._by_init[bubble.init_pid]
            self._young.discard(bubble)
            self._watch.discard(bubble)
            if not bubble.let_go():
                self._lingering.add(bubble)
