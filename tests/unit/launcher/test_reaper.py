"""Children of the test stand for bubblewrap's monitor and its init."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import cast

import pytest

from coworkd.launcher import reaper as room
from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.exec_watch import PollingWatch
from coworkd.launcher.readers import Readers
from coworkd.launcher.reaper import Reaper
from coworkd.launcher.status import StatusReader
from coworkd.system import cgroup
from tests.unit.launcher.launcher_room import open_fds


class House:
    """A reaper, and what it tells."""

    def __init__(self) -> None:
        self.reaped: list[int] = []
        self.news: list[str] = []
        self.readers = Readers()
        self.reaper = Reaper(self.readers, on_reaped=self.reaped.append)
        self.statuses: list[int] = []
        self.bwraps: list[Bwrap] = []

    def bwrap(self, monitor_pid: int, name: str = "one") -> Bwrap:
        read, write = os.pipe2(os.O_NONBLOCK)
        self.statuses.append(write)
        error, stderr = os.open("/dev/null", os.O_RDONLY), -1
        made = Bwrap(
            monitor_pid=monitor_pid,
            status=StatusReader(read),
            error_fd=error,
            diagnostics_fd=stderr,
            link=None,
            cgroup_path=None,
        )
        made.on_news = lambda: self.news.append(f"{name} {'gone' if made.gone else 'lives'}")
        self.reaper.add(made)
        self.bwraps.append(made)
        return made

    def close(self) -> None:
        self.readers.close()
        for bwrap in self.bwraps:
            bwrap.close()
        for fd in self.statuses:
            os.close(fd)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(room, "open_watch", lambda: (_Silent(), None))
    _reap_strangers()
    before = open_fds()
    made = House()
    yield made
    made.close()
    assert open_fds() == before


def _reap_strangers() -> None:
    """Whoever asked for them has let go: children that other tests have left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue


class _Silent(PollingWatch):
    """Tells nothing by itself: the status pipe does."""

    def poll(self) -> set[Bwrap]:
        return set()


def child(code: int = 0) -> int:
    """One that has ended and waits to be reaped."""
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def waiting_child() -> int:
    """One that ends only by a signal."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


def test_a_bwrap_is_gone_with_its_monitor_and_its_init(house: House) -> None:
    monitor, init = child(), child()
    bwrap = house.bwrap(monitor)
    os.write(house.statuses[0], b'{"child-pid": %d}\n' % init)
    house.reaper.take_facts()
    assert bwrap.gone
    assert sorted(house.reaped) == sorted([monitor, init])
    assert house.news == ["one gone"]
    assert bwrap.status.fd is None  # it was let go of


def test_an_init_that_was_never_told_of_is_not_waited_for(house: House) -> None:
    bwrap = house.bwrap(child(1))
    house.reaper.take_facts()
    assert (bwrap.gone, house.news) == (True, ["one gone"])


def test_an_init_that_bubblewrap_has_reaped_is_not_waited_for(house: House) -> None:
    init = child()
    os.waitpid(init, 0)
    bwrap = house.bwrap(child(1))
    os.write(house.statuses[0], b'{"child-pid": %d}\n' % init)
    house.reaper.take_facts()
    assert (bwrap.gone, house.news) == (True, ["one gone"])


def test_an_init_that_lives_is_waited_for(house: House) -> None:
    hold_read, hold_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(hold_write)
        os.read(hold_read, 1)
        os._exit(0)
    os.close(hold_read)
    bwrap = house.bwrap(child())
    os.write(house.statuses[0], b'{"child-pid": %d}\n' % init)
    house.reaper.take_facts()
    assert (bwrap.gone, house.news) == (False, ["one lives"])
    os.close(hold_write)
    house.reaper.wait_gone([bwrap], 20.0)
    assert house.news == ["one lives", "one gone"]


def test_an_init_whose_bubblewrap_was_killed_is_ended(house: House) -> None:
    """It may not have asked to die with it yet, and would wait for it for ever."""
    monitor, init = waiting_child(), waiting_child()
    bwrap = house.bwrap(monitor)
    os.write(house.statuses[0], b'{"child-pid": %d}\n' % init)
    os.kill(monitor, signal.SIGKILL)
    house.reaper.wait_gone([bwrap], 20.0)
    assert sorted(house.reaped) == sorted([monitor, init])
    assert (bwrap.gone, bwrap.killed) == (True, False)  # nobody has asked for that


def test_strangers_are_told_of_and_are_nobodys(house: House) -> None:
    house.bwrap(2**22 + 1)
    stranger = child()
    house.reaper.take_facts()
    assert (house.reaped, house.news) == ([stranger], [])


def test_a_number_that_is_given_out_anew_is_the_new_ones(house: House) -> None:
    hold_read, hold_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(hold_write)
        os.read(hold_read, 1)
        os._exit(0)
    os.close(hold_read)
    monitor = child()
    old = house.bwrap(monitor, "old")
    os.write(house.statuses[0], b'{"child-pid": %d}\n' % init)
    house.reaper.take_facts()
    new = house.bwrap(monitor, "new")
    os.close(hold_write)
    house.reaper.wait_gone([old], 20.0)
    assert (old.gone, new.gone) == (True, False)
    assert cast(PollingWatch, house.reaper._watch)._waiting == {monitor: new}


def test_a_cgroup_that_the_kernel_holds_for_a_moment_is_removed_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False, False, True]
    killed: list[str] = []
    monkeypatch.setattr(cgroup, "remove", lambda path: answers.pop(0))
    monkeypatch.setattr(cgroup, "kill", killed.append)
    bwrap = house.bwrap(child(1))
    bwrap.cgroup_path = "/cgroup/p-1"
    house.reaper.take_facts()
    assert bwrap.gone
    assert answers == [False, True]
    assert killed == ["/cgroup/p-1"]  # an init that nobody was told of may be what holds it
    house.reaper.take_facts()
    house.reaper.take_facts()
    assert answers == []
    house.reaper.take_facts()


def test_those_are_waited_for_that_are_being_born_in_a_group(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "remove", lambda path: True)
    bwrap = house.bwrap(child())
    bwrap.cgroup_path = "/cgroup/s-one/commands/p-1"
    house.reaper.wait_born("/cgroup/s-on", 20.0)
    assert house.news == []
    house.reaper.wait_born("/cgroup/s-one/commands", 20.0)
    assert house.news == ["one gone"]
    house.bwrap(2**22 + 1).cgroup_path = "/cgroup/s-two/commands/p-2"
    house.reaper.wait_born("/cgroup/s-two/commands", 0.0)
    assert house.news == ["one gone"]
