"""A bwrap of pipes: what is learned of one bubblewrap, and how it is ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from coworkd.launcher.bwrap import NO_RUSAGE
from coworkd.system import cgroup
from tests.unit.launcher.launcher_room import INIT, MONITOR, PAYLOAD, USAGE, Sandbox, open_fds

Make = Callable[..., Sandbox]


@pytest.fixture
def make() -> Iterator[Make]:
    before = open_fds()
    made: list[Sandbox] = []

    def one(*, shim: bool = False, cgroup: str | None = None) -> Sandbox:
        made.append(Sandbox(shim=shim, cgroup=cgroup))
        return made[-1]

    yield one
    for sandbox in made:
        sandbox.close()
    assert open_fds() == before


def test_an_init_that_bubblewrap_reaped_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make()
    sandbox.bwrap.learn_init(INIT)
    assert not sandbox.bwrap.learn_orphaned()
    sandbox.bwrap.learn_reaped(MONITOR, 256, USAGE)

    def gone(*_: object) -> None:
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", gone)
    assert sandbox.bwrap.learn_orphaned()
    assert not sandbox.bwrap.learn_orphaned()
    assert sandbox.bwrap.gone


def test_a_foreign_child_is_not_ours(make: Make) -> None:
    assert not make().bwrap.learn_reaped(999, 0, USAGE)


def test_a_signal_before_the_command_is_refused(make: Make) -> None:
    with pytest.raises(ProcessLookupError):
        make().bwrap.signal(signal.SIGTERM)


def test_a_signal_goes_to_the_group_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = make().bwrap
    sent: list[tuple[int, int]] = []
    bwrap.init_pid, bwrap.payload_pid, bwrap.payload_pidfd = INIT, PAYLOAD, os.memfd_create("pidfd")
    bwrap.learn_exec()
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: None)
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append((group, number)))
    monkeypatch.setattr(os, "getpgid", lambda pid: PAYLOAD)
    bwrap.signal(signal.SIGTERM)
    assert sent == [(PAYLOAD, signal.SIGTERM)]
    monkeypatch.setattr(os, "getpgid", lambda pid: 1)
    with pytest.raises(ProcessLookupError, match="left its process group"):
        bwrap.signal(signal.SIGTERM)
    assert len(sent) == 1


@pytest.mark.parametrize("shim", [True, False])
def test_who_executes_a_command_gets_no_signal_for_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, shim: bool
) -> None:
    bwrap = make(shim=shim).bwrap
    sent: list[int] = []
    bwrap.init_pid, bwrap.payload_pid, bwrap.payload_pidfd = INIT, PAYLOAD, os.memfd_create("pidfd")
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: None)
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append(number))
    monkeypatch.setattr(os, "getpgid", lambda pid: INIT)
    with pytest.raises(ProcessLookupError, match="has not started"):
        bwrap.signal(signal.SIGTERM)
    bwrap.learn_exec()
    bwrap.signal(signal.SIGTERM)
    assert sent == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("first_thread", "told", "end"),
    [
        (3 << 8, 3, (3, None, False)),
        (signal.SIGSEGV | 0x80, 139, (None, signal.SIGSEGV, False)),
        (0, 3, (3, None, False)),
        (0, 137, (None, signal.SIGKILL, True)),
        (5 << 8, None, (5, None, False)),
    ],
)
def test_the_end_is_the_process_not_its_first_threads(
    make: Make, first_thread: int, told: int | None, end: tuple[int | None, int | None, bool]
) -> None:
    sandbox = make()
    sandbox.bwrap.payload_status = first_thread
    if told is not None:
        sandbox.say(f'{{"exit-code": {told}}}')
        sandbox.bwrap.status.read()
    assert sandbox.bwrap.end_of_payload() == end


def test_kill_ends_init_and_monitor_and_nothing_reaped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make()
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    sandbox.bwrap.learn_init(INIT)
    sandbox.bwrap.kill()
    assert killed == [INIT, MONITOR]
    sandbox.bwrap.learn_reaped(MONITOR, 9, USAGE)
    sandbox.bwrap.kill()
    assert killed == [INIT, MONITOR, INIT]
    sandbox.bwrap.learn_reaped(INIT, 9, USAGE)
    sandbox.bwrap.kill()
    assert len(killed) == 3


def test_kill_uses_the_cgroup_and_thaws_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make(cgroup="/cgroup/p-1")
    done: list[str] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: None)

    def kill(path: str) -> bool:
        done.append(f"kill {path}")
        return True

    monkeypatch.setattr(cgroup, "kill", kill)
    monkeypatch.setattr(cgroup, "freeze", lambda path, frozen: done.append(f"freeze {frozen}"))
    sandbox.bwrap.kill()
    assert done == ["kill /cgroup/p-1", "freeze False"]


def test_what_the_shim_used_before_is_not_the_commands(make: Make) -> None:
    sandbox = make(shim=True)
    assert sandbox.link is not None
    sandbox.link.send(b"ready %d 0 7 0 0 0 9000" % (USAGE.ru_utime * 1e6 / 2))
    assert sandbox.bwrap.hear_ready()
    assert not sandbox.bwrap.hear_ready()
    sandbox.bwrap.learn_init(INIT)
    sandbox.reap()
    rusage = sandbox.bwrap.rusage
    assert rusage.user_s == pytest.approx(USAGE.ru_utime / 2, abs=1e-5)
    assert rusage.minor_faults == USAGE.ru_minflt - 7


def test_a_shims_usage_that_comes_late_is_still_heard(make: Make) -> None:
    sandbox = make(shim=True)
    assert sandbox.link is not None
    sandbox.link.send(b"ready 1 2 3 4 5 6 7")
    sandbox.bwrap.learn_exec()
    assert sandbox.bwrap.shim_usage == (1, 2, 3, 4, 5, 6, 7)
    assert sandbox.bwrap.link is None


def test_a_bwrap_that_was_never_reaped_has_no_usage(make: Make) -> None:
    assert make().bwrap.rusage == NO_RUSAGE


def test_an_error_of_the_child_is_taken_once(make: Make) -> None:
    sandbox = make()
    os.write(sandbox.error, b"uid 1")
    assert (sandbox.bwrap.take_error(), sandbox.bwrap.take_error()) == (b"uid 1", b"")


def test_one_that_is_let_go_of_leaves_no_cgroup(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(cgroup, "remove", removed.append)
    make(cgroup="/cgroup/p-1").bwrap.let_go()
    assert removed == ["/cgroup/p-1"]
