from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from coworkd.launcher import exec_watch
from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.exec_watch import ConnectorWatch, PollingWatch, open_watch
from coworkd.system.proc_connector import Exec, ExitStatus, Fork, Overflow, ProcConnector, ProcEvent
from tests.unit.launcher.launcher_room import INIT, MONITOR, PAYLOAD, Sandbox


class Connector:
    """A connector whose events are the test's."""

    def __init__(self) -> None:
        self.events: list[ProcEvent] = []
        self.heard: list[list[int] | None] = []
        """What was asked for, None for all; the last counts."""

    def hear_all(self) -> None:
        self.heard.append(None)

    def hear_exits(self, pids: Collection[int]) -> None:
        self.heard.append(sorted(pids))

    def fileno(self) -> int:
        return 77

    def read(self) -> list[ProcEvent]:
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


@pytest.fixture
def terminal() -> Iterator[Sandbox]:
    made = Sandbox(shim=True)
    yield made
    made.close()


def watched(bwrap: Bwrap) -> tuple[Connector, ConnectorWatch]:
    connector = Connector()
    watch = ConnectorWatch(cast("ProcConnector", connector))
    watch.add(bwrap)
    return connector, watch


@pytest.fixture(autouse=True)
def _no_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(os, "pidfd_open", gone)


def test_forks_exec_and_exit_are_told_to_their_process(sandbox: Sandbox) -> None:
    bwrap = sandbox.bwrap
    connector, watch = watched(bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD), Exec(PAYLOAD), ExitStatus(PAYLOAD, 256)]
    assert watch.poll() == {bwrap}
    assert (bwrap.init_pid, bwrap.payload_pid) == (INIT, PAYLOAD)
    assert bwrap.executed
    assert bwrap.payload_status == 256


def test_while_nothing_is_born_only_the_ends_of_commands_are_heard(sandbox: Sandbox, terminal: Sandbox) -> None:
    connector, watch = watched(sandbox.bwrap)
    watch.rest()
    assert connector.heard in ([], [[PAYLOAD], None])
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD)]
    watch.poll()
    watch.rest()
    assert connector.heard in ([], [[PAYLOAD], None])
    connector.events = [Exec(PAYLOAD)]
    watch.poll()
    watch.rest()
    assert connector.heard == [[PAYLOAD]]
    assert not watch.wakes
    watch.expect()
    assert connector.heard in ([], [[PAYLOAD], None])
    assert watch.wakes


def test_where_the_ends_of_strangers_are_heard_too_they_are_taken_at_once(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_watch, "EXITS_LIMIT", 0)
    connector, watch = watched(sandbox.bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD), Exec(PAYLOAD)]
    watch.poll()
    watch.rest()
    assert (connector.heard, watch.wakes) == ([[PAYLOAD]], True)


def test_a_shims_birth_is_over_with_its_fork_and_its_command_begins_no_other(terminal: Sandbox) -> None:
    connector, watch = watched(terminal.bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD)]
    watch.poll()
    watch.rest()
    watch.add(terminal.bwrap)
    watch.rest()
    assert connector.heard == [[PAYLOAD]]


def test_only_the_first_child_of_each_is_the_one(sandbox: Sandbox) -> None:
    bwrap = sandbox.bwrap
    connector, watch = watched(bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(MONITOR, 900), Fork(INIT, PAYLOAD), Fork(INIT, 901)]
    watch.poll()
    assert (bwrap.init_pid, bwrap.payload_pid) == (INIT, PAYLOAD)


def test_an_init_that_the_status_pipe_told_first_is_still_followed(sandbox: Sandbox) -> None:
    bwrap = sandbox.bwrap
    connector, watch = watched(bwrap)
    bwrap.learn_init(INIT)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD), Exec(PAYLOAD)]
    watch.poll()
    assert bwrap.executed


def test_strangers_are_nobodys(sandbox: Sandbox) -> None:
    connector, watch = watched(sandbox.bwrap)
    connector.events = [Fork(1, 2), Exec(2), ExitStatus(2, 0)]
    assert watch.poll() == set()


def test_the_shims_exec_is_not_the_commands(terminal: Sandbox) -> None:
    connector, watch = watched(terminal.bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD), Exec(PAYLOAD)]
    assert watch.poll() == {terminal.bwrap}
    assert not terminal.bwrap.executed


def test_discarded_pids_are_nobodys(sandbox: Sandbox) -> None:
    connector, watch = watched(sandbox.bwrap)
    connector.events = [Fork(MONITOR, INIT), Fork(INIT, PAYLOAD)]
    watch.poll()
    watch.discard(sandbox.bwrap)
    connector.events = [Fork(MONITOR, 5), Fork(INIT, 6), ExitStatus(PAYLOAD, 9)]
    assert watch.poll() == set()
    assert sandbox.bwrap.payload_status is None


def test_dropped_events_are_made_up_for_from_proc(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = sandbox.bwrap
    connector, watch = watched(bwrap)
    assert watch.next_due() is None
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(exec_watch, "_children", lambda pid: [PAYLOAD] if pid == INIT else [])
    monkeypatch.setattr(os, "readlink", lambda path: path)
    connector.events = [Overflow()]
    watch.poll()
    sandbox.say(f'{{"child-pid": {INIT}}}')
    assert watch.next_due() is not None
    now[0] += 1.0
    assert watch.poll() == {bwrap}
    assert bwrap.executed
    assert watch.next_due() is None
    connector.events = [ExitStatus(PAYLOAD, 9)]
    watch.poll()
    assert bwrap.payload_status == 9


def test_polling_sees_a_real_exec(sandbox: Sandbox) -> None:
    bwrap = sandbox.bwrap
    watch = PollingWatch()
    watch.add(bwrap)
    # Its shell stands for bubblewrap's init, its child for the command.
    with subprocess.Popen(["sh", "-c", "cat; :"], stdin=subprocess.PIPE) as shell:
        bwrap.learn_init(shell.pid)
        while watch.next_due() is not None:
            watch.poll()
        assert bwrap.executed
        assert os.readlink(f"/proc/{bwrap.payload_pid}/exe").endswith("cat")
        shell.communicate()


def test_polling_slows_down_and_starts_over_for_a_new_one(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    watch = PollingWatch()
    assert watch.next_due() is None
    watch.add(sandbox.bwrap)
    first = watch.next_due()
    for _ in range(20):
        watch.poll()
    last = watch.next_due()
    watch.add(sandbox.bwrap)
    assert (first, last, watch.next_due()) == pytest.approx((5.001, 5.05, 5.001))
    watch.discard(sandbox.bwrap)
    assert watch.next_due() is None


def test_polling_passes_over_what_has_no_init_yet(sandbox: Sandbox) -> None:
    watch = PollingWatch()
    watch.add(sandbox.bwrap)
    assert watch.poll() == {sandbox.bwrap}
    assert sandbox.bwrap.payload_pid is None
    assert watch.next_due() is not None


def test_polling_passes_over_what_has_gone(sandbox: Sandbox) -> None:
    watch = PollingWatch()
    sandbox.bwrap.learn_init(2**22 + 1)
    watch.add(sandbox.bwrap)
    assert watch.poll() == {sandbox.bwrap}
    assert not sandbox.bwrap.executed


def test_open_watch_says_why_it_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> SimpleNamespace:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(exec_watch, "ProcConnector", refuse)
    watch, reason = open_watch()
    assert isinstance(watch, PollingWatch)
    assert reason is not None
    assert "inferred" in reason


def test_open_watch_is_exact_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_watch, "ProcConnector", Connector)
    watch, reason = open_watch()
    assert watch.fileno() == 77
    assert reason is None
