from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coworkd.model.launch import Exited, Started, StartError
from coworkd.system import cgroup
from tests.unit.launcher.launcher_room import INIT, MONITOR, PAYLOAD, USAGE, Sandbox, open_fds

Make = Callable[..., Sandbox]


@pytest.fixture
def make() -> Iterator[Make]:
    before = open_fds()
    made: list[Sandbox] = []

    def one(*, tty: bool = False, cgroup: str | None = None) -> Sandbox:
        made.append(Sandbox(tty=tty, cgroup=cgroup))
        return made[-1]

    yield one
    for sandbox in made:
        sandbox.close()
    assert open_fds() == before


def only(sandbox: Sandbox) -> Started | StartError | Exited:
    (notice,) = sandbox.process.notices()
    return notice


def exited(sandbox: Sandbox) -> Exited:
    notice = only(sandbox)
    assert isinstance(notice, Exited)
    return notice


def start_error(sandbox: Sandbox) -> StartError:
    notice = only(sandbox)
    assert isinstance(notice, StartError)
    return notice


def test_a_command_that_runs_is_told_once(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    notice = only(sandbox)
    assert isinstance(notice, Started)
    assert (notice.init_pid, notice.payload_pid) == (INIT, PAYLOAD)
    assert sandbox.process.notices() == []


def test_an_end_before_any_notice_tells_start_and_exit_in_order(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.say('{"exit-code": 3}')
    sandbox.reap()
    assert [type(notice) for notice in sandbox.process.notices()] == [Started, Exited]


def test_an_end_waits_for_the_init(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.process.notices()
    sandbox.process.learn_reaped(MONITOR, 0, USAGE)
    assert sandbox.process.notices() == []
    sandbox.process.learn_reaped(INIT, 0, USAGE)
    assert exited(sandbox).rusage.max_rss_bytes == USAGE.ru_maxrss * 1024


def test_an_exact_status_wins_over_bubblewraps(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.process.notices()
    sandbox.process.payload_status = signal.SIGKILL
    sandbox.say('{"exit-code": 137}')
    sandbox.reap()
    notice = exited(sandbox)
    assert (notice.code, notice.signal, notice.inferred) == (None, signal.SIGKILL, False)


@pytest.mark.parametrize(
    ("said", "code", "number", "inferred"),
    [
        (0, 0, None, False),
        (128, 128, None, False),
        (143, None, 15, True),
        (192, None, 64, True),
        (193, 193, None, False),
    ],
)
def test_without_an_exact_status_128_and_more_is_inferred(
    make: Make, said: int, code: int | None, number: int | None, inferred: bool
) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.process.notices()
    sandbox.say(f'{{"exit-code": {said}}}')
    sandbox.reap()
    notice = exited(sandbox)
    assert (notice.code, notice.signal, notice.inferred) == (code, number, inferred)


def test_a_command_that_never_ran_is_told_by_bubblewraps_words(make: Make) -> None:
    sandbox = make()
    os.write(sandbox.spool, b"bwrap: execvp cat: No such file ")
    os.write(sandbox.stderr, b"or directory\n")
    sandbox.reap(256)
    notice = start_error(sandbox)
    assert (notice.stage, notice.errno) == ("not_found", errno.ENOENT)
    assert not sandbox.process.living


def test_a_setup_error_of_the_child_wins_over_bubblewraps_silence(make: Make) -> None:
    sandbox = make()
    sandbox.process.setup_error = ("sandbox_setup", errno.EPERM, "the sandbox's uid step failed")
    sandbox.reap(127 << 8)
    assert start_error(sandbox).message == "the sandbox's uid step failed"


def test_a_killed_command_exits_even_if_it_never_ran(make: Make) -> None:
    sandbox = make()
    sandbox.process.killed = True
    sandbox.reap(signal.SIGKILL)
    notice = exited(sandbox)
    assert (notice.signal, notice.killed) == (signal.SIGKILL, True)


def test_a_sandbox_that_a_signal_ended_is_no_start_error(make: Make) -> None:
    sandbox = make()
    sandbox.reap(signal.SIGSEGV)
    assert exited(sandbox).signal == signal.SIGSEGV


def test_an_init_that_bubblewrap_reaped_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make()
    sandbox.process.learn_init(INIT)
    assert not sandbox.process.learn_orphaned()
    sandbox.process.learn_reaped(MONITOR, 256, USAGE)

    def gone(*_: object) -> None:
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", gone)
    assert sandbox.process.learn_orphaned()
    assert not sandbox.process.learn_orphaned()
    assert isinstance(only(sandbox), StartError)


def test_a_foreign_child_is_not_ours(make: Make) -> None:
    assert not make().process.learn_reaped(999, 0, USAGE)


@pytest.mark.parametrize(
    ("said", "stage", "number"),
    [
        (b"+not_found 2", "not_found", 2),
        (b"+not_executable 13", "not_executable", 13),
        (b"+rm -rf 1", "sandbox_setup", 0),
        (b"+\xff", "sandbox_setup", 0),
        (b"+x -5", "sandbox_setup", 0),
    ],
)
def test_the_shims_words_are_never_trusted(make: Make, said: bytes, stage: str, number: int) -> None:
    process = make(tty=True).process
    process.shim_said = said
    process.learn_shim()
    assert process.setup_error is not None
    assert process.setup_error[:2] == (stage, number)
    assert not process.executed


def test_the_shims_plus_alone_is_a_good_exec(make: Make) -> None:
    process = make(tty=True).process
    process.shim_said = b"+"
    process.learn_shim()
    assert process.executed


def test_a_shim_that_died_without_a_word_is_no_exec(make: Make) -> None:
    process = make(tty=True).process
    process.learn_shim()
    assert not process.executed


def test_a_signal_before_the_command_is_refused(make: Make) -> None:
    with pytest.raises(ProcessLookupError):
        make().process.signal(signal.SIGTERM)


def test_a_signal_goes_to_the_group_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    process = make().process
    sent: list[tuple[int, int]] = []
    process.init_pid, process.payload_pid, process.payload_pidfd = INIT, PAYLOAD, os.memfd_create("pidfd")
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: None)
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append((group, number)))
    monkeypatch.setattr(os, "getpgid", lambda pid: PAYLOAD)
    process.signal(signal.SIGTERM)
    assert sent == [(PAYLOAD, signal.SIGTERM)]
    monkeypatch.setattr(os, "getpgid", lambda pid: 1)
    with pytest.raises(ProcessLookupError, match="left its process group"):
        process.signal(signal.SIGTERM)
    assert len(sent) == 1


def test_kill_ends_init_and_monitor_and_nothing_reaped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make()
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    sandbox.process.learn_init(INIT)
    sandbox.process.kill()
    assert killed == [INIT, MONITOR]
    sandbox.process.learn_reaped(MONITOR, 9, USAGE)
    sandbox.process.kill()
    assert killed == [INIT, MONITOR, INIT]
    sandbox.process.learn_reaped(INIT, 9, USAGE)
    sandbox.process.kill()
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
    sandbox.process.kill()
    assert done == ["kill /cgroup/p-1", "freeze False"]


def test_an_exit_tells_the_cgroups_oom_kills(make: Make, tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 2\n")
    sandbox = make(cgroup=str(tmp_path))
    monkeypatch.setattr(cgroup, "remove", lambda path: True)
    sandbox.run()
    sandbox.process.notices()
    sandbox.reap(signal.SIGKILL)
    assert exited(sandbox).oom_kills == 2


def test_adopted_tells_everything_that_was_told(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.say('{"exit-code": 0}')
    sandbox.reap()
    started, ended = sandbox.process.notices()
    adopted = sandbox.process.adopted(99)
    assert (adopted.id, adopted.spawned.id) == (99, 99)
    assert (adopted.started, adopted.exited, adopted.start_error) == (started, ended, None)
    assert adopted.spawned.fds == ("stderr", "stderr_spool")
