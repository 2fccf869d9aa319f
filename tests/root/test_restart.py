"""coworkd or its launcher killed while commands run, policies reloaded, the audit log proved: what must outlive what."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from coworkd.client.process import Process
from coworkd.client.sync import Client, connect
from coworkd.model.errors import CoworkError, NotFound, Unavailable
from coworkd.model.process import Exit
from coworkd.system.supervised import listener_pid
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, exited, fresh_mark, living, session_of, took_at_most, wait_until

pytestmark = pytest.mark.needs("bubblewrap")
REPO = Path(__file__).resolve().parents[2]
LOST = Exit(code=None, signal=None, reason="lost")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the coworkds of one test run, one after the other."""
    return tmp_path / "d"


@contextmanager
def killed_daemon(place: Path) -> Iterator[Daemon]:
    """A coworkd for the block, killed at its end with all its threads; its launcher lives on for a while."""
    with running_daemon(place) as daemon:
        yield daemon
        daemon.child.kill()
        assert daemon.child.wait(60) == -signal.SIGKILL


def read_some(process: Process, wanted: int) -> bytes:
    said = b""
    while len(said) < wanted:
        piece = process.read(timeout_s=60)
        assert piece is not None
        said += piece.data
    return said


def rest_of(process: Process, stream: str) -> bytes:
    return b"".join(piece.data for piece in process if piece.stream == stream)


def test_command_outlives_coworkd(place: Path) -> None:
    mark = fresh_mark()
    script = f"for i in $(seq 1 400); do echo line $i; sleep 0.005; done; sleep {mark}; exit 7"
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        process = client.start("work", ["sh", "-c", script])
        first = read_some(process, 100)
        pid = process.pid
        launcher = client.info().launcher_pid
    os.kill(pid, 0)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        assert client.info().launcher_pid == launcher
        restarted = client.hello.restarted
        assert restarted is not None
        assert (restarted.running, restarted.sessions, restarted.lost) == (1, 1, ())
        assert "daemon.recovered" in kinds_of(client)
        assert [found.state for found in client.doctor().findings if found.check == "restart"] == ["ok"]
        (known,) = client.process_list(session="work").processes
        assert (known.process, known.state, known.pid) == (process.id, "running", pid)
        assert known.argv == (b"sh", b"-c", script.encode())
        assert client.session_get(session="work").session.processes == 1
        again = client.attach(process.id, stdout=len(first), stderr=0)
        wait_until(lambda: living(f"sleep\0{mark}"), "all lines are told")
        os.kill(next(iter(living(f"sleep\0{mark}"))), signal.SIGTERM)
        assert first + rest_of(again, "stdout") == b"".join(b"line %d\n" % number for number in range(1, 401))
        ended = again.wait(60)
        assert (ended.exit, ended.output) == (exited(7), "complete")
        assert client.run("work", ["echo", "next"]).stdout == b"next\n"
    assert living(mark) == []


def test_exit_while_coworkd_is_away_is_told_later(place: Path) -> None:
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        process = client.start("work", ["sh", "-c", "echo before; read line; echo after; exit 3"], stdin=True)
        pid = process.pid
        read_some(process, len("before\n"))
        process.write_stdin(b"go\n")
        process.close_stdin()
        process.detach()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the command ends")
    with running_daemon(place) as daemon, client_of(daemon) as client:
        again = client.attach(process.id, stdout=0, stderr=0)
        assert rest_of(again, "stdout") == b"before\nafter\n"
        assert again.wait(60).exit == exited(3)
        again.forget()
        with pytest.raises(NotFound):
            client.process_get(process=process.id)
        assert client.audit_verify().ok


def test_stdin_and_terminal_outlive_coworkd(place: Path) -> None:
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        reader = client.start("work", ["sha256sum"], stdin=True)
        reader.write_stdin(b"first ")
        terminal = client.start("work", ["sh", "-c", "read a; echo got $a; tty; read b; echo got $b"], tty=(24, 80))
        terminal.write_stdin(b"one\n")
        read_some(terminal, len("one\r\ngot one\r\n/dev/pts/0\r\n"))
    with running_daemon(place) as daemon, client_of(daemon) as client:
        again = client.attach(reader.id)
        assert again.resume_stdin() == len(b"first ")
        client.process_write_stdin(process=reader.id, offset=len(b"first "), data=b"second")
        client.process_close_stdin(process=reader.id)
        assert rest_of(again, "stdout").split()[0].decode() == hashlib.sha256(b"first second").hexdigest()
        assert again.wait(60).exit == exited(0)
        screen = client.attach(terminal.id, tty=0)
        client.process_write_stdin(process=terminal.id, offset=len(b"one\n"), data=b"two\n")
        assert rest_of(screen, "tty") == b"one\r\ngot one\r\n/dev/pts/0\r\ntwo\r\ngot two\r\n"


def test_a_reader_that_takes_its_time_to_come_back_misses_nothing(place: Path) -> None:
    """Not `block`: it is this reader whom the command waits for, over kill -9 too."""
    wanted = b"".join(b"%d\n" % number for number in range(1, 1_000_001))
    said = b""
    with ExitStack() as stack:
        with killed_daemon(place) as daemon:
            client = stack.enter_context(connect(daemon.uri, reconnect_s=30))
            client.session_ensure(name="work")
            process = client.start("work", ["seq", "1", "1000000"])
            pieces = iter(process)
            while len(said) < 300_000:
                said += next(pieces).data
        with running_daemon(place) as daemon, client_of(daemon) as other:
            # Nobody has come back yet: what there is room for is taken, and no more.
            wait_until(lambda: other.process_get(process=process.id).streams["stdout"][1] > len(said), "it is read on")
            time.sleep(0.3)
            assert other.process_get(process=process.id).streams["stdout"][0] <= process.offsets()["stdout"]
            said += b"".join(piece.data for piece in pieces)
            assert said == wanted
            assert (client.renewals, process.wait(60).output) == (1, "complete")


def test_one_shot_ends_with_its_coworkd(place: Path) -> None:
    mark = fresh_mark()

    def run_and_lose() -> None:
        with client_of(daemon) as other, pytest.raises(Unavailable):
            other.run("work", ["sleep", mark])

    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        runner = threading.Thread(target=run_and_lose)
        runner.start()
        wait_until(lambda: living(mark), "the one-shot runs")
    runner.join(60)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        wait_until(lambda: not living(mark), "nobody waits for it any more, so it ends")
        wait_until(lambda: client.process_list().processes == (), "and is forgotten")


def test_a_run_is_not_run_a_second_time_by_the_next_coworkd(place: Path) -> None:
    said: list[str] = []

    def run_over_a_restart() -> None:
        with connect(daemon.uri, reconnect_s=30) as other:
            with pytest.raises(Unavailable, match="not run a second time"):
                other.run("work", ["sh", "-c", "echo once >> runs; sleep 1000"])
            said.append(other.run("work", ["cat", "runs"]).stdout.decode())

    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        runner = threading.Thread(target=run_over_a_restart)
        runner.start()
        wait_until(lambda: client.process_list().processes, "the one-shot runs")
        wait_until(lambda: client.run("work", ["cat", "runs"]).stdout == b"once\n", "and has begun")
    with running_daemon(place):
        runner.join(60)
    assert said == ["once\n"]


def test_a_call_that_may_have_been_done_is_not_done_again_by_the_next_coworkd(place: Path) -> None:
    said: list[CoworkError | None] = []
    with killed_daemon(place) as daemon, client_of(daemon) as client, connect(daemon.uri, reconnect_s=30) as other:
        client.session_ensure(name="work")
        process = client.start("work", ["sleep", fresh_mark()]).id

        def call() -> None:
            try:
                other.process_signal(process=process, signal="HUP")
            except CoworkError as error:
                said.append(error)
            other.process_kill(process=process, grace_s=0)
            said.append(None)

        caller = threading.Thread(target=call)
        daemon.child.send_signal(signal.SIGSTOP)
        caller.start()
        wait_until(lambda: other._link.core._pending, "it is asked")
        daemon.child.kill()
        daemon.child.wait(60)
        with running_daemon(place) as after, client_of(after) as client:
            caller.join(60)
            unknown, killed = said
            assert isinstance(unknown, Unavailable)
            assert unknown.details == {"method": "process.signal", "stage": "restarted"}
            assert killed is None
            assert client.process_wait(process=process, timeout_s=60).exit.reason == "killed"


def test_a_client_that_was_idle_over_a_restart_calls_as_ever(place: Path) -> None:
    """What it says first is not heard by anybody, and so is said again, even what must not happen twice."""
    with killed_daemon(place) as daemon:
        client = connect(daemon.uri, reconnect_s=30)
        client.session_ensure(name="work")
    with client, running_daemon(place):
        assert client.run("work", ["echo", "there"]).stdout == b"there\n"
        assert client.renewals == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_starts_that_never_reached_the_launcher_are_not_lost_but_made_again(place: Path, replaced: bool) -> None:
    """The log has them, and coworkd was killed before any was let in: nothing ran. Its launcher may not have been its first."""
    said: list[Exit] = []
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        if replaced:
            os.kill(client.info().launcher_pid, signal.SIGKILL)
            wait_until(lambda: runs_again(client), "the next launcher runs commands")
        before = kinds_of(client).count("process.start")
        with stopped(client.info().launcher_pid):
            starters = [threading.Thread(target=start_over_a_restart, args=(daemon, said)) for _ in range(3)]
            for starter in starters:
                starter.start()
            wait_until(lambda: kinds_of(client).count("process.start") == before + 3, "the log has them")
            daemon.child.kill()
            daemon.child.wait(60)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        for starter in starters:
            starter.join(60)
        restarted = client.hello.restarted
        assert restarted is not None
        assert restarted.lost == ()
        assert said == [exited(3)] * 3
        assert client.run("work", ["cat", "runs"]).stdout == b"once\n" * 3


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def start_over_a_restart(daemon: Daemon, said: list[Exit]) -> None:
    with connect(daemon.uri, reconnect_s=30) as client:
        said.append(client.start("work", ["sh", "-c", "echo once >> runs; exit 3"]).wait(60).exit)


def test_restarts_again_and_again(place: Path) -> None:
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        process = client.start("work", ["sh", "-c", "while sleep 0.01; do echo $((i = i + 1)); done"], attach=False)
    for _ in range(6):
        with killed_daemon(place) as daemon, client_of(daemon) as client:
            assert client.process_get(process=process.id).state == "running"
            assert client.run("work", ["echo", "here"]).stdout == b"here\n"
    with running_daemon(place) as daemon, client_of(daemon) as client:
        again = client.attach(process.id, stdout=0)
        lines = read_some(again, 300).split()[:-1]
        assert lines == [b"%d" % number for number in range(1, len(lines) + 1)]
        again.kill(0)
        assert again.wait(60).exit.reason == "killed"


@pytest.mark.parametrize("after_s", [0.15, 0.25, 0.35, 0.5])
def test_term_ends_coworkd_however_far_it_came(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "coworkd", "local", "--state", str(tmp_path / "d" / "state")]
    command += ["--socket", str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=REPO) as child:
        time.sleep(after_s)  # any moment of its coming up will do
        child.send_signal(signal.SIGTERM)
        # Before it listens to signals it dies of this one.
        assert child.wait(60) in (0, -signal.SIGTERM)
    with running_daemon(tmp_path / "d") as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        assert client.run("work", ["true"]).exit == exited(0)


@pytest.mark.parametrize("program", ["launcher", "egress"])
def test_term_leaves_no_program_that_waits_for_ever(tmp_path: Path, program: str) -> None:
    """Ended as soon as the one it has started listens, before it has said a word to it."""
    run = tmp_path / "state" / ".coworkd" / "run"
    command = [sys.executable, "-m", "coworkd", "local", "--keep", "--state", str(tmp_path / "state")]
    command += ["--socket", str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=REPO) as child:
        try:
            wait_until((run / f"{program}.sock").exists, "it listens")
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0
        finally:
            child.kill()
    for each in ("launcher", "egress"):
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            listener_pid(str(run / f"{each}.sock"))


# -- the launcher --------------------------------------------------------------------------------------------------


def test_launcher_killed_takes_every_sandbox_and_is_replaced(place: Path) -> None:
    mark = fresh_mark()
    with running_daemon(place) as daemon, client_of(daemon) as client, session_of(client, "work"):
        plain = client.start("work", ["sh", "-c", f"echo ready; setsid sleep {mark} & sleep {mark}"])
        screen = client.start("work", ["sh", "-c", f"echo ready; sleep {mark}"], tty=(24, 80))
        for each in (plain, screen):
            read_some(each, len("ready\n"))
        wait_until(lambda: len(living(mark)) >= 3, "all run")
        old = client.info().launcher_pid
        os.kill(old, signal.SIGKILL)
        with took_at_most(5):
            assert plain.wait(60).exit == LOST
            assert screen.wait(60).exit == LOST
        wait_until(lambda: not living(mark), "every sandbox ends with the launcher")
        wait_until(lambda: runs_again(client), "the next command runs")
        assert client.info().launcher_pid != old
        assert client.session_ensure(name="work").session.state == "ready"
        assert not client.hello.degraded.get("launcher", "").startswith("the launcher")
        plain.forget()
        screen.forget()
    assert not leftover(daemon)


def test_what_ran_when_both_were_killed_is_told_as_lost(place: Path) -> None:
    mark = fresh_mark()
    with killed_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        processes = [client.start("work", ["sh", "-c", f"echo ready; sleep {mark}"]) for _ in range(3)]
        for process in processes:
            read_some(process, len("ready\n"))
        ended = client.start("work", ["true"])
        assert ended.wait(60).exit == exited(0)
        shot = threading.Thread(target=partial(run_lost, daemon, mark))
        shot.start()
        wait_until(lambda: count_running(client) == 4, "all run")
        launcher = client.info().launcher_pid
    shot.join(60)
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: not living(mark), "every sandbox ends with the launcher")
    with running_daemon(place) as daemon, client_of(daemon) as client:
        restarted = client.hello.restarted
        assert restarted is not None
        (lost,) = restarted.lost
        assert lost.startswith("4 commands, with the launcher before: ")
        assert all(process.id in lost for process in processes)
        assert "daemon.recovered" in kinds_of(client)
        known = client.process_list().processes
        assert [(each.process, each.state, each.pid) for each in known] == [
            (process.id, "exited", None) for process in processes
        ]
        for process in processes:
            assert client.process_wait(process=process.id).exit == LOST
            again = client.attach(process.id, stdout=len("ready\n"))
            assert list(again) == []
            assert again.wait().exit == LOST
            again.forget()
        assert client.audit_verify().ok
        assert runs_again(client)
    with running_daemon(place) as daemon, client_of(daemon) as client:
        assert client.hello.restarted is None
        assert client.process_list().processes == ()


def count_running(client: Client) -> int:
    return sum(each.state == "running" for each in client.process_list().processes)


def run_lost(daemon: Daemon, mark: str) -> None:
    with client_of(daemon) as client, pytest.raises(Unavailable):
        client.run("work", ["sleep", mark])


def runs_again(client: Client) -> bool:
    try:
        return client.run("work", ["echo", "back"]).stdout == b"back\n"
    except Unavailable:
        return False


def differs(count: Callable[[], int], before: int) -> bool:
    return count() != before


def leftover(daemon: Daemon) -> list[int]:
    """Processes that still name this daemon's directory."""
    return living(str(daemon.state))


# -- policies and the log ------------------------------------------------------------------------------------------


@pytest.fixture
def policed(place: Path, tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A coworkd with an admin's policy directory that is empty so far."""
    admin = tmp_path / "policies"
    (admin / "profiles").mkdir(parents=True)
    with running_daemon(place, "--policies", str(admin)) as daemon:
        yield daemon, admin / "profiles" / "default.toml"


def test_hangup_reloads_a_good_policy_and_keeps_out_a_bad_one(policed: tuple[Daemon, Path]) -> None:
    daemon, file = policed
    with client_of(daemon) as client, session_of(client, "work"):

        def reload(text: str) -> None:
            file.write_text(text)
            daemon.child.send_signal(signal.SIGHUP)

        def limit() -> int:
            return int(client.run("work", ["sh", "-c", "ulimit -n"]).stdout)

        def complaints() -> int:
            return len(client.logs(level="error").lines)

        before = limit()
        reload("[limits]\nnofile = 777\n")
        wait_until(lambda: limit() == 777, f"the limit changes from {before}")
        for bad in (
            "[limits]\nnofiles = 5\n",
            "[limits]\nnofile = 5\nnofile = 6\n",
            "[limits\n",
            "[limits]\nnofile = true\n",
        ):
            seen = complaints()
            reload(bad)
            wait_until(partial(differs, complaints, seen), f"{bad!r} is complained of")
            said = client.logs(level="error").lines[-1].message
            assert "default.toml" in said
            assert limit() == 777
        reload("[limits]\nnofile = 888\n")
        wait_until(lambda: limit() == 888, "a mended file is taken")
        kinds = [record["kind"] for record in client.audit_tail(limit=500).records]
        assert kinds.count("policy.refused") == 4
        assert kinds.count("policy.reload") == 2


def test_flipped_byte_in_the_audit_log_is_found(place: Path) -> None:
    with running_daemon(place) as daemon, client_of(daemon) as client:
        with session_of(client, "work"):
            for number in range(5):
                client.run("work", ["echo", str(number)])
        verified = client.audit_verify()
        assert (verified.ok, verified.problem) == (True, None)
        assert verified.records == verified.last - verified.first + 1 > 10
        assert daemon.ctl("audit", "verify").returncode == 0
        (log,) = (daemon.state / ".coworkd" / "audit").glob("audit-*.jsonl")
        data = bytearray(log.read_bytes())
        data[data.index(b'"echo"') + 2] ^= 1
        log.write_bytes(data)
        told = daemon.ctl("audit", "verify")
        assert told.returncode != 0
        assert b"process.start" in told.stdout + told.stderr or b"record" in told.stdout + told.stderr
        assert not client.audit_verify().ok


def kinds_of(client: Client) -> list[str]:
    return [record["kind"] for record in client.audit_tail(limit=500).records]


def test_every_effect_is_in_the_audit_log(place: Path) -> None:
    with running_daemon(place) as daemon, client_of(daemon) as client:
        client.session_ensure(name="work")
        process = client.start("work", ["sleep", "30"], attach=False)
        process.signal("CONT")
        process.kill(0)
        process.wait(60)
        # An exit is told before its record is written: it has happened already.
        wait_until(lambda: "process.exit" in kinds_of(client), "the record of the exit")
        client.session_delete(session="work", force=True)
        kinds = kinds_of(client)
    wanted = [
        "daemon.start",
        "session.create",
        "process.start",
        "process.signal",
        "process.kill",
        "process.exit",
        "session.delete",
    ]
    assert [kind for kind in kinds if kind in wanted][-len(wanted) :] == wanted
    (log,) = (daemon.state / ".coworkd" / "audit").glob("audit-*.jsonl")
    assert b'"daemon.stop"' in log.read_bytes().splitlines()[-1]
