"""Commands in real sandboxes: how they start, end, are signalled and killed, and what their trees leave behind: nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from coworkd.client import aio
from coworkd.client.process import Process
from coworkd.client.sync import Client
from coworkd.model.errors import DeadlineExceeded, InvalidState, NotFound
from coworkd.model.process import Exit
from tests.root.conftest import Daemon
from tests.root.live import client_of, exited, fresh_mark, living, session_of, took_at_most, wait_until

LONG_S = 15.5
"""Longer than an idle worker thread of trio's lives: a PDEATHSIG of such a thread would have struck by then."""

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def session(client: Client) -> Iterator[str]:
    with session_of(client, "proc") as name:
        yield name


@pytest.fixture(scope="module", autouse=True)
def long_command(client: Client, session: str) -> Process:
    """Started before all others, looked at by the last."""
    return client.start(session, ["sh", "-c", f"sleep {LONG_S}; echo alive"], attach=False)


def shell(client: Client, session: str, script: str, **fields: object) -> Process:
    return client.start(session, ["sh", "-c", script], **fields)  # type: ignore[arg-type]  # the fields of `start`


def read_until(process: Process, wanted: bytes, timeout_s: float = 60) -> bytes:
    """Output up to and with `wanted`."""
    said = b""
    deadline = time.monotonic() + timeout_s
    while wanted not in said:
        piece = process.read(timeout_s=max(0.0, deadline - time.monotonic()))
        assert piece is not None, f"{wanted!r} did not come, only {said!r}"
        said += piece.data
    return said


# -- exits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code_is_the_commands(client: Client, session: str, code: int) -> None:
    assert client.run(session, ["sh", "-c", f"exit {code}"]).exit == exited(code)


@pytest.mark.needs("proc-connector")
def test_exit_code_above_128_is_a_code(client: Client, session: str) -> None:
    assert client.run(session, ["sh", "-c", "exit 137"]).exit == exited(137)
    assert client.run(session, ["sh", "-c", "exit 143"]).exit == exited(143)


@pytest.mark.needs("proc-connector")
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT", "HUP", "RTMIN+1"])
def test_exit_by_signal_is_told_exactly(client: Client, session: str, name: str) -> None:
    # A shell of its own: the one that says `kill` must not be the init's idea of an exit code.
    number = 35 if name == "RTMIN+1" else name
    ran = client.run(session, ["sh", "-c", f"kill -{number} $$; sleep 10"])
    assert ran.exit == Exit(code=None, signal=name, reason="signaled", inferred=False)


@pytest.mark.needs("proc-connector")
def test_exit_by_signal_with_a_terminal_is_told_exactly(client: Client, session: str) -> None:
    with shell(client, session, "kill -SEGV $$", tty=(24, 80)) as process:
        assert process.wait(60).exit == Exit(code=None, signal="SEGV", reason="signaled", inferred=False)
    with shell(client, session, "exit 139", tty=(24, 80)) as process:
        assert process.wait(60).exit == exited(139)


def test_rusage_is_of_the_command(client: Client, session: str) -> None:
    ran = client.run(
        session, ["python3", "-c", "import time\nx = bytearray(60_000_000)\nwhile time.process_time() < 0.2: pass"]
    )
    assert ran.exit == exited(0)
    assert ran.rusage is not None
    assert 0.15 < ran.rusage.user_s + ran.rusage.system_s < 2
    assert 60_000_000 < ran.rusage.max_rss_bytes < 200_000_000


def test_wait_answers_more_than_once_and_forget_ends_it(client: Client, session: str) -> None:
    process = shell(client, session, "exit 3", attach=False)
    assert process.wait(60) == process.wait(60)
    assert process.wait(60).exit == exited(3)
    process.forget()
    with pytest.raises(NotFound):
        client.process_get(process=process.id)


def test_wait_with_timeout_changes_nothing(client: Client, session: str) -> None:
    with shell(client, session, "sleep 30", attach=False) as process:
        with pytest.raises(DeadlineExceeded):
            process.wait(0.05)
        assert client.process_get(process=process.id).state == "running"


# -- signals and killing -------------------------------------------------------------------------------------------


def test_term_runs_the_trap(client: Client, session: str) -> None:
    with shell(client, session, 'trap "echo caught; exit 7" TERM; echo ready; sleep 30 & wait') as process:
        read_until(process, b"ready\n")
        process.signal("TERM")
        assert read_until(process, b"caught\n") == b"caught\n"
        assert process.wait(60).exit == exited(7)


def test_signal_reaches_the_whole_group(client: Client, session: str) -> None:
    script = 'trap : USR1; sh -c "trap \\"echo child\\" USR1; echo ready; while :; do sleep 0.05; done"; echo parent'
    with shell(client, session, script) as process:
        read_until(process, b"ready\n")
        process.signal("USR1")
        read_until(process, b"child\n")


def test_kill_with_grace_lets_the_trap_run(client: Client, session: str) -> None:
    with shell(client, session, 'trap "echo bye; exit 9" TERM; echo ready; sleep 30 & wait') as process:
        read_until(process, b"ready\n")
        with took_at_most(10):
            process.kill(grace_s=20)
            read_until(process, b"bye\n")
            assert process.wait(60).exit == Exit(code=9, signal=None, reason="killed")


@pytest.mark.parametrize("seconds", [0.006, 0.05])
def test_a_one_shot_has_begun_before_it_can_look_at_the_clock_whenever_that_is_told(
    client: Client, session: str, seconds: float
) -> None:
    for _ in range(3):  # the first may find no sandbox that waits
        before = time.time()
        ran = client.run(session, ["sh", "-c", f"date +%s.%N; sleep {seconds}"])
        looked = float(ran.stdout)
        assert before < ran.started_at <= looked <= ran.ended_at - seconds + 0.001


def test_kill_ends_what_ignores_term(client: Client, session: str) -> None:
    mark = fresh_mark()
    with shell(client, session, f'trap "" TERM; echo ready; sleep {mark}; sleep {mark}') as process:
        read_until(process, b"ready\n")
        process.kill(grace_s=0.3)
        ended = process.wait(60)
        assert ended.exit == Exit(code=None, signal="KILL", reason="killed")
        assert ended.ended_at - ended.started_at >= 0.3
    assert living(mark) == []


DAEMONS = "setsid sh -c 'setsid sleep {0} <&- >&- 2>&- & (setsid nohup sleep {0} &) & sleep {0}' & sleep 0.1; "


@pytest.mark.parametrize("grace_s", [0, 0.2])
def test_kill_takes_the_whole_tree(client: Client, session: str, grace_s: float) -> None:
    mark = fresh_mark()
    with shell(client, session, DAEMONS.format(mark) + f"echo ready; sleep {mark}") as process:
        read_until(process, b"ready\n")
        wait_until(lambda: len(living(mark)) >= 4, "all of the tree run")
        process.kill(grace_s)
        assert process.wait(60).exit.reason == "killed"
        assert living(mark) == []


@pytest.mark.parametrize("tty", [None, (24, 80)])
def test_daemons_die_with_the_command(client: Client, session: str, tty: tuple[int, int] | None) -> None:
    mark = fresh_mark()
    with shell(client, session, DAEMONS.format(mark) + "exit 5", tty=tty) as process:
        assert process.wait(60).exit == exited(5)
        assert living(mark) == []


def test_kill_works_on_what_is_stopped(client: Client, session: str) -> None:
    mark = fresh_mark()
    with shell(client, session, f"echo ready; sleep {mark}; sleep {mark}") as process:
        read_until(process, b"ready\n")
        process.signal("STOP")
        states = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: states.read_text().rpartition(")")[2].split()[0] == "T", "the command stops")
        process.kill(grace_s=0.2)
        assert process.wait(60).exit.reason == "killed"
    assert living(mark) == []


def test_stopped_command_continues(client: Client, session: str) -> None:
    with shell(client, session, "echo ready; read line; echo $line", stdin=True) as process:
        read_until(process, b"ready\n")
        process.signal("STOP")
        process.write_stdin(b"on\n")
        assert process.read(timeout_s=0.2) is None
        process.signal("CONT")
        assert read_until(process, b"on\n") == b"on\n"


def test_kill_while_starting_is_not_lost(client: Client, session: str) -> None:
    mark = fresh_mark()
    for _ in range(5):
        process = client.start(session, ["sleep", mark], attach=False)
        process.kill(0)
        assert process.wait(60).exit.reason == "killed"
        process.forget()
    assert living(mark) == []


def test_signal_after_the_end_is_refused(client: Client, session: str) -> None:
    process = shell(client, session, "true", attach=False)
    process.wait(60)
    with pytest.raises(InvalidState):
        process.signal("TERM")
    process.kill(0)
    assert process.wait(60).exit == exited(0)
    process.forget()


def test_timeout_kills_the_tree_and_keeps_what_was_said(client: Client, session: str) -> None:
    mark = fresh_mark()
    with took_at_most(10):
        script = DAEMONS.format(mark) + f"echo partial; echo problem >&2; sleep {mark}"
        ran = client.run(session, ["sh", "-c", script], timeout_s=3)
    assert ran.exit == Exit(code=None, signal="KILL", reason="timeout")
    assert (ran.stdout, ran.stderr) == (b"partial\n", b"problem\n")
    assert living(mark) == []


def test_timeout_of_a_started_command(client: Client, session: str) -> None:
    with shell(client, session, "echo partial; sleep 30", timeout_s=3) as process:
        read_until(process, b"partial\n")
        assert process.wait(60).exit == Exit(code=None, signal="KILL", reason="timeout")


def test_grandchild_with_the_pipe_does_not_hold_the_exit(client: Client, session: str) -> None:
    mark = fresh_mark()
    with took_at_most(10):
        ran = client.run(session, ["sh", "-c", f"(setsid sleep {mark} &) ; echo done"])
    assert (ran.exit, ran.stdout, ran.output) == (exited(0), b"done\n", "complete")
    assert living(mark) == []


# -- what a command is given ---------------------------------------------------------------------------------------


def test_workload_goes_first_when_memory_is_short(client: Client, session: str, daemon: Daemon) -> None:
    scores = client.run(session, ["sh", "-c", "cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj'"])
    assert scores.stdout == b"100\n100\n"
    for pid in (daemon.child.pid, client.info().launcher_pid):
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) < 100


def test_command_has_three_descriptors_and_default_signals(client: Client, session: str) -> None:
    script = "import os, signal; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1]); print(open('/proc/self/status').read())"
    said = client.run(session, ["python3", "-I", "-S", "-c", script]).stdout.decode()
    assert said.startswith("[0, 1, 2]\n")
    status = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert int(status["SigBlk"], 16) == 0
    # Python itself ignores PIPE and XFSZ; nothing else may be ignored.
    assert int(status["SigIgn"], 16) & ~(1 << 12 | 1 << 24) == 0
    shell_status = client.run(session, ["cat", "/proc/self/status"]).stdout.decode()
    assert "SigIgn:\t0000000000000000" in shell_status


def test_arguments_arrive_as_bytes(client: Client, session: str) -> None:
    odd = [b"", b"a b", b"\xff\xfe", b"--", b"-x", b"$HOME", b"line\nline", "ä€".encode()]
    ran = client.run(session, ["sh", "-c", 'printf "%s\\0" "$@"', "sh", *odd])
    assert ran.stdout == b"\0".join(odd) + b"\0"


def test_longest_argument_arrives(client: Client, session: str) -> None:
    ran = client.run(session, ["sh", "-c", "printf %s ${#1}", "sh", "x" * 131_071])
    assert (ran.stdout, ran.exit) == (b"131071", exited(0))


def test_many_arguments_arrive(client: Client, session: str) -> None:
    ran = client.run(session, ["sh", "-c", "echo $#", "sh", *["12345678" * 25] * 4000])
    assert (ran.stdout, ran.exit) == (b"4000\n", exited(0))


# -- many ----------------------------------------------------------------------------------------------------------


def test_eighty_commands_at_once(daemon: Daemon, session: str) -> None:
    codes: dict[int, tuple[int | None, bytes]] = {}

    async def all_at_once() -> None:
        async with await aio.connect(daemon.uri) as client:

            async def run(number: int) -> None:
                ran = await client.run(session, ["sh", "-c", f"sleep 1; echo {number}; exit {number}"])
                codes[number] = (ran.exit.code, ran.stdout)

            with trio.fail_after(60):  # one after the other they would sleep for longer
                async with trio.open_nursery() as nursery:
                    for number in range(80):
                        nursery.start_soon(run, number)

    trio.run(all_at_once)
    assert codes == {number: (number, f"{number}\n".encode()) for number in range(80)}


def test_two_sessions_do_not_see_each_other(client: Client, session: str) -> None:
    mark = fresh_mark()
    look = """ls /sessions; cat /sessions/*/file; grep -la [s]ecret /proc/[0-9]*/environ; cat /proc/*/cmdline | tr '\\0' ' '"""
    with (
        session_of(client, "proc-other", env={"WORD": "secret"}) as other,
        shell(client, other, f"echo secret > file; exec sleep {mark}", attach=False) as process,
    ):
        wait_until(lambda: living(mark), "the other's command runs")
        ran = client.run(session, ["sh", "-c", f"{look}; kill -0 {process.pid}"])
        assert ran.stdout.startswith(b"proc\nsh -c ls")  # of pid 1 nothing is shown
        assert mark.encode() not in ran.stdout
        assert b"cannot open" in ran.stderr or b"No such file" in ran.stderr
        assert b"No such process" in ran.stderr
        assert {each.process for each in client.process_list(session=other).processes} == {process.id}
        assert process.id not in {each.process for each in client.process_list(session=session).processes}
        assert process.id in {each.process for each in client.process_list().processes}


def test_command_outlives_idle_threads(client: Client, long_command: Process) -> None:
    # Last in this module, so that the other tests' time counts.
    ended = long_command.wait(LONG_S + 10)
    assert ended.exit == exited(0)
    assert ended.bytes["stdout"] == len(b"alive\n")
    assert ended.ended_at - ended.started_at >= LONG_S
    long_command.forget()
