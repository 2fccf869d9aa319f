from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from coworkd.model.launch import Exited, Spawn, Started, StartError
from tests.unit.launcher.launcher_room import INIT, MONITOR, PAYLOAD, SPAWN, USAGE, Sandbox, open_fds

Make = Callable[..., Sandbox]


@pytest.fixture
def make() -> Iterator[Make]:
    before = open_fds()
    made: list[Sandbox] = []

    def one(*, shim: bool = False, cgroup: str | None = None, spawn: Spawn = SPAWN) -> Sandbox:
        made.append(Sandbox(shim=shim, cgroup=cgroup, spawn=spawn))
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


def test_an_end_before_any_notice_brings_the_start(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.say('{"exit-code": 3}')
    sandbox.reap()
    (ended,) = sandbox.process.notices()
    assert isinstance(ended, Exited)
    assert (ended.code, ended.started) == (3, sandbox.process.started)
    assert ended.started is not None


def test_an_end_after_its_start_was_told_does_not_tell_it_again(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    assert [type(notice) for notice in sandbox.process.notices()] == [Started]
    sandbox.say('{"exit-code": 3}')
    sandbox.reap()
    (ended,) = sandbox.process.notices()
    assert isinstance(ended, Exited)
    assert ended.started is None


def test_an_end_waits_for_the_init(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.process.notices()
    sandbox.bwrap.learn_reaped(MONITOR, 0, USAGE)
    assert sandbox.process.notices() == []
    sandbox.bwrap.learn_reaped(INIT, 0, USAGE)
    assert exited(sandbox).rusage.max_rss_bytes == USAGE.ru_maxrss * 1024


def test_an_exact_status_wins_over_bubblewraps(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.process.notices()
    sandbox.bwrap.payload_status = signal.SIGKILL
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
    sandbox.bwrap.killed = True
    sandbox.reap(signal.SIGKILL)
    notice = exited(sandbox)
    assert (notice.signal, notice.killed) == (signal.SIGKILL, True)


def test_a_sandbox_that_a_signal_ended_is_no_start_error(make: Make) -> None:
    sandbox = make()
    sandbox.reap(signal.SIGSEGV)
    assert exited(sandbox).signal == signal.SIGSEGV


@pytest.mark.parametrize(
    ("said", "stage", "number"),
    [
        (b"+1700000000000000000 exec 2", "not_found", 2),
        (b"+1700000000000000000 exec 13", "not_executable", 13),
        (b"cwd 20", "bad_cwd", 20),
        (b"streams 9", "sandbox_setup", 9),
        (b"+5 rm -rf 1", "sandbox_setup", None),
        (b"+5 \xff", "sandbox_setup", None),
        (b"+", "sandbox_setup", None),
        (b"+123456789012345678901 ", "sandbox_setup", None),
    ],
)
def test_why_the_shim_did_not_execute_it_is_told(make: Make, said: bytes, stage: str, number: int | None) -> None:
    sandbox = make(shim=True)
    sandbox.process.hand_over()
    sandbox.process.shim_said = said
    sandbox.process.learn_shim()
    sandbox.say('{"exit-code": 127}')
    sandbox.reap()
    error = start_error(sandbox)
    assert (error.stage, error.errno) == (stage, number)


def test_the_shims_time_alone_is_a_good_exec_of_that_time(make: Make) -> None:
    sandbox = make(shim=True)
    at = time.time() + 0.05
    time.sleep(0.1)
    sandbox.run_shim(b"+%d " % int(at * 1e9))
    (started,) = sandbox.process.notices()
    assert isinstance(started, Started)
    assert abs(started.at - at) < 0.001
    assert started.monitor_pid == sandbox.bwrap.monitor_pid


@pytest.mark.parametrize("said", [b"+0 ", b"+99999999999999999999 "])
def test_a_time_that_cannot_be_of_the_exec_is_put_between_the_sandbox_and_now(make: Make, said: bytes) -> None:
    sandbox = make(shim=True)
    sandbox.run_shim(said)
    (started,) = sandbox.process.notices()
    assert isinstance(started, Started)
    assert sandbox.process.spawned.at <= started.at <= time.time()


def test_a_shim_that_ended_without_a_word_has_not_run_it(make: Make) -> None:
    sandbox = make(shim=True)
    sandbox.process.hand_over()
    sandbox.open_gate()
    sandbox.process.learn_shim()
    sandbox.say('{"exit-code": 137}')
    sandbox.reap()
    assert sandbox.process.notices() == []
    assert (sandbox.process.can_move, sandbox.process.gated) == (True, False)
    sandbox.process.move(sandbox.bwrap)
    assert not sandbox.process.can_move


def test_a_second_shim_that_has_died_as_well_is_told_by_its_end(make: Make) -> None:
    sandbox = make(shim=True)
    assert sandbox.link is not None
    sandbox.link.close()
    with pytest.raises(OSError):
        sandbox.process.hand_over()
    sandbox.process.move(sandbox.bwrap)
    sandbox.reap()
    assert start_error(sandbox).stage == "sandbox_setup"


def test_a_command_for_which_no_other_sandbox_is_to_be_had_is_told(make: Make) -> None:
    sandbox = make(shim=True)
    sandbox.say('{"exit-code": 1}')
    sandbox.reap()
    sandbox.process.give_up("resources", errno.EAGAIN, "no process is left")
    assert start_error(sandbox).stage == "resources"


def test_a_shim_that_was_killed_while_it_executed_is_told_as_the_commands_end(make: Make) -> None:
    sandbox = make(shim=True)
    sandbox.process.hand_over()
    sandbox.process.shim_said = b"+5 "
    sandbox.say('{"exit-code": 137}')
    sandbox.reap()
    assert exited(sandbox).signal == signal.SIGKILL


def test_a_command_that_was_killed_with_its_shim_is_moved_nowhere(make: Make) -> None:
    sandbox = make(shim=True)
    sandbox.process.hand_over()
    sandbox.bwrap.killed = True
    sandbox.reap(signal.SIGKILL)
    assert exited(sandbox).killed


def test_a_sandbox_that_died_before_its_command_was_inside_is_nobodys_end(make: Make) -> None:
    sandbox = make(shim=True)
    sandbox.reap(signal.SIGKILL)
    assert sandbox.process.notices() == []
    assert sandbox.process.gated


def test_a_shim_gets_its_command_as_far_as_the_gate(make: Make) -> None:
    sandbox = make(shim=True)
    assert sandbox.link is not None
    sandbox.process.hand_over()
    message, fds, _, _ = socket.recv_fds(sandbox.link, 4096, 9)
    assert message == b"\0".join((b"2", b"/", b"", b"", b"cat", b"-"))
    os.set_blocking(fds[1], False)
    with pytest.raises(BlockingIOError):
        os.read(fds[1], 1)
    assert sandbox.process.gated
    sandbox.open_gate()
    assert os.read(fds[1], 1)
    assert not sandbox.process.gated
    for fd in fds:
        os.close(fd)


def test_a_gate_is_let_go_of_when_the_exec_is_known(make: Make) -> None:
    sandbox = make()
    sandbox.open_gate()
    sandbox.run()
    assert len(sandbox.process.notices()) == 1
    assert (sandbox.process.gate.read, sandbox.process.gated) == (-1, False)


def test_what_nobody_waits_for_is_told_with_the_end(make: Make) -> None:
    sandbox = make(spawn=structs.replace(SPAWN, one_shot=True))
    sandbox.run()
    assert sandbox.process.notices() == []
    sandbox.say('{"exit-code": 0}')
    sandbox.reap()
    (ended,) = sandbox.process.notices()
    assert isinstance(ended, Exited)
    assert ended.started is not None


def test_what_nobody_waits_for_is_told_of_a_command_that_runs_on(make: Make) -> None:
    sandbox = make(spawn=structs.replace(SPAWN, one_shot=True))
    assert not sandbox.process.quiet_until  # that begins with its exec, however long bubblewrap builds
    sandbox.run()
    assert sandbox.process.notices() == []
    assert sandbox.process.quiet_until > time.monotonic()
    sandbox.process.quiet_until = time.monotonic()
    assert [type(notice) for notice in sandbox.process.notices()] == [Started]


def test_a_shim_that_has_gone_takes_no_command(make: Make) -> None:
    sandbox = make(shim=True)
    assert sandbox.link is not None
    sandbox.link.close()
    with pytest.raises(BrokenPipeError):
        sandbox.process.hand_over()
    assert sandbox.process.gated


def test_an_exit_tells_the_cgroups_oom_kills(make: Make, tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 2\n")
    sandbox = make(cgroup=str(tmp_path))
    sandbox.run()
    sandbox.process.notices()
    sandbox.reap(signal.SIGKILL)
    assert exited(sandbox).oom_kills == 2


def test_adopted_tells_everything_that_was_told(make: Make) -> None:
    sandbox = make()
    sandbox.run()
    sandbox.say('{"exit-code": 0}')
    sandbox.reap()
    (ended,) = sandbox.process.notices()
    assert isinstance(ended, Exited)
    adopted = sandbox.process.adopted(99)
    assert (adopted.id, adopted.spawned.id) == (99, 99)
    assert (adopted.started, adopted.exited, adopted.start_error) == (ended.started, ended, None)
    assert adopted.spawned.fds == ("stderr", "stderr_spool")


def test_adopted_tells_whether_it_was_let_in(make: Make) -> None:
    sandbox = make(shim=True)
    assert not sandbox.process.adopted(1).let_in
    sandbox.open_gate()
    assert sandbox.process.adopted(1).let_in
    sandbox.run_shim(b"+5 ")
    sandbox.process.notices()
    assert sandbox.process.adopted(1).let_in
