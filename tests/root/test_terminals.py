"""`coworkctl shell`, `run --tty` and `attach` on a terminal of the test's own: what a person at one expects, and that it is given back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from tests.root.conftest import Daemon, running_daemon
from tests.root.cutting import Cut, cutting_way
from tests.root.live import client_of, fresh_mark, living, program, session_of, wait_until
from tests.root.terminal_lab import REPO, LocalTerminal, ctl_argv, ctl_on_terminal, on_terminal

pytestmark = pytest.mark.needs("bubblewrap")
PROMPT = b"here> "
PS1 = ("-e", "PS1=here> ")
DETACH = b"\x10\x11"
MIB = 1 << 20
FULL_SCREEN = r"""
import os, signal, time
def draw(*_):  # a resize may come while it draws
    size = os.get_terminal_size()
    os.write(1, b"\x1b[2J\x1b[Hdrawn %d %d" % (size.lines, size.columns))
signal.signal(signal.SIGWINCH, draw)
os.write(1, b"\x1b[?1049h\x1b[?25l"); draw()
while True: time.sleep(1)
"""


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made:
        yield made


@pytest.fixture(scope="module")
def session(client: Client) -> Iterator[str]:
    with session_of(client, "terminals") as name:
        yield name


def say(terminal: LocalTerminal, line: bytes, *shown: bytes) -> bytes:
    """Type a line to a shell; what was shown up to the next prompt."""
    terminal.type(line + b"\r")
    return terminal.wait_for(*shown, PROMPT)


def ended(terminal: LocalTerminal, status: int) -> bytes:
    """It has ended so, and the terminal is as it was; what it said last."""
    assert terminal.end() == status, terminal.shown
    assert terminal.settings() == terminal.before
    return terminal.shown


def left_process(said: bytes) -> str:
    return said.split(b" attach ")[-1].split()[0].decode()


# -- what a shell has ----------------------------------------------------------------------------------------------


def test_a_shell_has_a_terminal_as_people_expect_it(daemon: Daemon, session: str) -> None:
    terminal_of_mine = {"TERM": "xterm-kitty", "COLORTERM": "truecolor"}
    with ctl_on_terminal(daemon, "shell", *PS1, session, rows=31, cols=97, env=terminal_of_mine) as terminal:
        begun = terminal.wait_for(PROMPT)
        assert b"no job control" not in begun
        assert b"/dev/pts/0" in say(terminal, b"tty")
        assert b"31 97" in say(terminal, b"stty size")
        assert b"xterm-256color truecolor" in say(terminal, b"echo $TERM $COLORTERM")
        assert b"256" in say(terminal, b"tput colors")
        assert b"\x1b[01;34m" in say(terminal, b"ls --color=auto /")
        flags = say(terminal, b"stty -a").split()
        for flag in (b"iutf8", b"icanon", b"isig", b"echo", b"icrnl", b"opost", b"onlcr", b"ixon"):
            assert flag in flags
        assert b"UTF-8" in say(terminal, b"locale charmap")
        # Session leader, foreground, with a controlling terminal.
        assert b"leads fore pts/0" in say(
            terminal,
            b"ps -o sid=,pgid=,tpgid=,tty= -p $$ | (read s g t y; [ $s = $$ ] && printf 'leads '; [ $s = $g ] && echo fore $y)",
        )
        terminal.type(b"exit 7\r")
        ended(terminal, 7)


def test_a_shell_without_a_terminal_reads_what_to_do(daemon: Daemon, session: str) -> None:
    ran = daemon.ctl("shell", session, stdin=b"tty; echo said $((40 + 2)); exit 3\n")
    assert (ran.returncode, ran.stdout) == (3, b"not a tty\nsaid 42\n")


@pytest.mark.parametrize("typed", [b"a\nb\n", b"a\nb"])
def test_the_end_of_what_is_piped_is_the_end_for_a_command_with_a_terminal(
    daemon: Daemon, session: str, typed: bytes
) -> None:
    command = ["run", "--session", session, "-t", "-i", "--", "sh", "-c", "stty -echo; echo ready; exec cat"]
    with program(ctl_argv(daemon, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\r\n"
        child.stdin.write(typed)
        child.stdin.close()
        assert child.stdout.read() == typed.replace(b"\n", b"\r\n")
        assert child.wait(60) == 0


def test_another_size_of_the_window_reaches_what_runs(daemon: Daemon, session: str) -> None:
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "python3", "-c", FULL_SCREEN) as terminal:
        terminal.wait_for(b"\x1b[?1049h", b"drawn 24 80")
        for rows in range(30, 330):
            terminal.resize(rows, 100)
        terminal.resize(50, 132)
        terminal.wait_for(b"drawn 50 132")
        os.kill(terminal.child.pid, signal.SIGTERM)
        said = ended(terminal, 128 + signal.SIGTERM)
        assert b"\x1b[?25h\x1b[?1049l" in said


# -- jobs and keys -------------------------------------------------------------------------------------------------


def test_jobs_stop_go_on_and_end_with_the_shell(daemon: Daemon, session: str) -> None:
    first, second = fresh_mark().encode(), fresh_mark().encode()
    with ctl_on_terminal(daemon, "shell", *PS1, session) as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, b"sleep " + first + b" &", b"[1]")
        terminal.type(b"sleep " + second + b"\r")
        wait_until(lambda: living(second.decode()), "the foreground job runs")
        terminal.type(b"\x1a")
        terminal.wait_for(b"^Z", b"Stopped", PROMPT)
        listed = say(terminal, b"jobs", b"sleep " + second)
        assert b"Running" in listed
        assert b"Stopped" in listed
        say(terminal, b"bg %2", b"&")
        # A job in the background that reads the terminal is stopped by the kernel.
        say(terminal, b"cat &", b"[3]")
        wait_until(lambda: b"Stopped" in say(terminal, b"jobs %3", b"cat"), "the kernel stops it")
        terminal.type(b"fg %2\r")
        terminal.wait_for(b"sleep " + second)
        terminal.type(b"\x03")
        terminal.wait_for(b"^C", PROMPT)
        assert not living(second.decode())
        assert living(first.decode())
        say(terminal, b"set -m; echo st''ill $?", b"still 0")
        terminal.type(b"exit 5\r")
        terminal.wait_for(b"stopped jobs", PROMPT)
        terminal.type(b"exit 5\r")
        ended(terminal, 5)
    wait_until(lambda: not living(first.decode()), "what ran in the background has ended with the shell")


def test_keys_that_signal_reach_the_foreground_and_not_us(daemon: Daemon, session: str) -> None:
    with ctl_on_terminal(daemon, "shell", *PS1, session) as terminal:
        terminal.wait_for(PROMPT)
        for key, number in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)):
            mark = fresh_mark().encode()
            terminal.type(b"ulimit -c 0; sleep " + mark + b"\r")
            wait_until(lambda mark=mark: living(mark.decode()), "it runs")  # type: ignore[misc]
            terminal.type(key)
            terminal.wait_for(PROMPT)
            say(terminal, b"echo stat''us $?", b"status %d" % (128 + number))
        terminal.type(b"\x04")
        ended(terminal, 0)


# -- bytes ---------------------------------------------------------------------------------------------------------


def test_a_raw_terminal_is_exact_both_ways(daemon: Daemon, session: str) -> None:
    noise = bytes(range(256)) + random.Random(6).randbytes(MIB)
    script = (
        "import os, sys, hashlib, random, subprocess\n"
        "subprocess.run(['stty', 'raw', '-echo'], check=True)\n"
        "os.write(1, b'ready')\n"
        f"got = b''\nwhile len(got) < {len(noise)}: got += os.read(0, 65536)\n"
        "os.write(1, hashlib.sha256(got).digest())\n"
        f"sys.stdout.buffer.write(bytes(range(256)) + random.Random(6).randbytes({MIB}))\n"
    )
    words = ["run", "--session", session, "-t", "--detach-keys", "none", "--", "python3", "-c", script]
    with ctl_on_terminal(daemon, *words) as terminal:
        terminal.wait_for(b"ready")
        terminal.wait_raw()
        terminal.type(noise)
        assert terminal.read_bytes(32) == hashlib.sha256(noise).digest()
        assert terminal.read_bytes(len(noise)) == noise
        ended(terminal, 0)


def test_a_mebibyte_of_lines_is_pasted_whole(daemon: Daemon, session: str) -> None:
    lines = b"".join(b"%062d\n" % number for number in range(MIB // 63))
    script = "cat > pasted; sha256sum pasted"
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "sh", "-c", script) as terminal:
        terminal.wait_raw()
        terminal.type(lines.replace(b"\n", b"\r") + b"\x04")
        terminal.wait_for(hashlib.sha256(lines).hexdigest().encode(), timeout_s=60)
        ended(terminal, 0)


def test_a_command_that_reads_nothing_holds_up_nobody_and_can_be_left(daemon: Daemon, session: str) -> None:
    mark = fresh_mark()
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "sleep", mark) as terminal:
        terminal.wait_raw()
        terminal.type(b"x" * 200_000)
        assert daemon.ctl("run", "--session", session, "--", "echo", "others").stdout == b"others\n"
        terminal.type(DETACH)
        process = left_process(ended(terminal, 0))
    assert living(mark)
    assert daemon.ctl("kill", "--grace", "0", process).returncode == 0
    assert not living(mark)


def test_output_stops_at_ctrl_s_and_goes_on_at_ctrl_q(daemon: Daemon, session: str) -> None:
    script = "echo ready; read go; seq 1 100000; echo all"
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "sh", "-c", script) as terminal:
        terminal.wait_for(b"ready")
        terminal.wait_raw()
        terminal.type(b"\x13\r")  # stopped before the first number
        assert daemon.ctl("run", "--session", session, "--", "true").returncode == 0
        assert b"1\r\n" not in terminal.shown
        terminal.type(b"\x11")
        seen = terminal.wait_for(b"all\r\n")
        assert b"\r\n".join(b"%d" % number for number in range(1, 100_001)) in seen
        ended(terminal, 0)


# -- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_the_terminal_is_given_back_at_every_signal(daemon: Daemon, session: str, number: int) -> None:
    script = "printf '\\033[?1049h\\033[?25l'; echo ready; exec sleep 3000"
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "sh", "-c", script) as terminal:
        terminal.wait_for(b"ready")
        terminal.wait_raw()
        os.kill(terminal.child.pid, number)
        assert b"\x1b[?25h\x1b[?1049l" in ended(terminal, 128 + number)


def test_a_window_that_is_closed_ends_its_shell(daemon: Daemon, session: str) -> None:
    mark = fresh_mark()
    with ctl_on_terminal(daemon, "shell", *PS1, session) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(b"sleep " + mark.encode() + b"\r")
        wait_until(lambda: living(mark), "it runs")
        terminal.hang_up()
        assert terminal.end() == 128 + signal.SIGHUP
    wait_until(lambda: not living(mark), "what ran in it has ended")


def test_a_command_that_is_killed_is_told_in_words(daemon: Daemon, session: str) -> None:
    script = "printf '\\033[?2004h'; echo ready; exec sleep 3000"
    with (
        client_of(daemon) as other,
        ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "sh", "-c", script) as terminal,
    ):
        terminal.wait_for(b"ready")
        known = other.process_list(session=session).processes
        (process,) = [each for each in known if each.exit is None and script.encode() in each.argv]
        other.process_kill(process=process.process, grace_s=0)
        said = ended(terminal, 137)
        assert b"\x1b[?2004l" in said
        assert b"coworkctl: the command was killed" in said


def test_the_time_limit_is_told_in_words(daemon: Daemon, session: str) -> None:
    words = ["run", "--session", session, "-t", "--timeout", "0.3", "--", "sleep", "3000"]
    with ctl_on_terminal(daemon, *words) as terminal:
        assert b"time limit" in ended(terminal, 124)


def test_the_terminal_is_given_back_where_nobody_takes_the_output(daemon: Daemon, session: str) -> None:
    reading, writing = os.pipe()
    try:
        argv = ctl_argv(daemon, "run", "--session", session, "-t", "--", "sh", "-c", "read go; exec yes")
        with on_terminal(*argv, stdout=writing) as terminal:
            os.close(writing)
            writing = -1
            terminal.wait_raw()
            os.close(reading)
            reading = -1
            terminal.type(b"\r")
            ended(terminal, 141)
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)


def test_stopped_from_outside_the_terminal_is_the_shells_and_then_ours_again(daemon: Daemon, session: str) -> None:
    with on_terminal("bash", "--norc", "--noprofile", "-i", env={"PS1": "local> "}) as terminal:
        terminal.wait_for(b"local> ")
        terminal.type(shlex.join(ctl_argv(daemon, "shell", *PS1, session)).encode() + b"\r")
        terminal.wait_for(PROMPT)
        terminal.wait_raw()
        ours = next(pid for pid in living(daemon.uri) if os.getpgid(pid) != os.getpgid(terminal.child.pid))
        os.kill(ours, signal.SIGTSTP)
        terminal.wait_for(b"Stopped", b"local> ")
        # The local shell edits its lines itself; a command of it sees the terminal as it gives it to commands.
        terminal.type(b"stty -a\r")
        assert b" -icanon" not in terminal.wait_for(b"local> ")
        terminal.resize(40, 111)
        terminal.type(b"fg\r")
        terminal.wait_raw()
        terminal.wait_for(PROMPT)
        wait_until(lambda: b"40 111" in say(terminal, b"stty size"), "the size it has now")
        terminal.type(b"exit 4\r")
        terminal.wait_for(b"local> ")
        terminal.type(b"echo stat''us $?; exit\r")
        terminal.wait_for(b"status 4")
        terminal.end()


# -- leaving and coming back ---------------------------------------------------------------------------------------


def test_a_shell_is_left_and_two_come_back_to_it(daemon: Daemon, session: str) -> None:
    with ctl_on_terminal(daemon, "shell", *PS1, session) as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, b"kept=42; for i in $(seq 100); do echo line $i.; done", b"line 100.")
        terminal.type(b"\x10")  # the last command again, though the keys that detach begin like it
        terminal.wait_for(b"for i in")
        terminal.type(b"\x15" + DETACH)
        said = ended(terminal, 0)
        assert b"it runs on" in said
        process = left_process(said)
    with contextlib.ExitStack() as both:
        first = both.enter_context(ctl_on_terminal(daemon, "attach", process, rows=33, cols=99))
        shown = first.wait_for(b"line 100.", PROMPT)
        assert b"line 60." not in shown
        assert b"line 80." in shown
        wait_until(lambda: b"33 99" in say(first, b"stty size"), "its size")
        second = both.enter_context(ctl_on_terminal(daemon, "attach", "--replay", "all", process, rows=44, cols=122))
        assert b"line 1." in second.wait_for(b"line 100.", PROMPT, b"33 99", PROMPT)
        # Both type, each behind the other; both see all of it.
        wait_until(lambda: b"44 122" in say(second, b"stty size"), "the size of who came last")
        say(second, b"echo kept $kept", b"kept 42")
        first.wait_for(b"kept 42", PROMPT)
        say(first, b"echo from the fi''rst", b"from the first")
        second.wait_for(b"from the first", PROMPT)
        # The size is that of the terminal that said one last.
        first.resize(20, 70)
        wait_until(lambda: b"20 70" in say(first, b"stty size"), "the first one's size")
        second.type(b"exit 3\r")
        ended(first, 3)
        ended(second, 3)


def test_a_full_screen_program_is_left_and_found_as_it_was(daemon: Daemon, session: str) -> None:
    with ctl_on_terminal(daemon, "run", "--session", session, "-t", "--", "python3", "-c", FULL_SCREEN) as terminal:
        terminal.wait_for(b"drawn 24 80")
        terminal.type(DETACH)
        said = ended(terminal, 0)
        assert b"\x1b[?25h\x1b[?1049l" in said
        process = left_process(said)
    with ctl_on_terminal(daemon, "attach", "--detach-keys", "~,.", process) as terminal:
        # In the same size: only one that changes makes a program draw.
        terminal.wait_for(b"\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H", b"drawn 24 80")
        terminal.type(DETACH)  # are not the keys here
        terminal.type(b"~.")
        ended(terminal, 0)
    assert daemon.ctl("kill", "--grace", "0", process).returncode == 0


def test_a_throw_away_session_passes_every_key_on(daemon: Daemon) -> None:
    script = "stty raw -echo; printf ready; head -c 3 | od -An -tx1; stty sane"
    with ctl_on_terminal(daemon, "run", "-t", "--", "sh", "-c", script) as terminal:
        terminal.wait_for(b"ready")
        terminal.type(DETACH + b"x")
        terminal.wait_for(b"10 11 78")
        ended(terminal, 0)


def test_what_follows_and_nothing_else_is_shown_where_that_is_asked(
    daemon: Daemon, session: str, client: Client
) -> None:
    script = "echo before; while read go; do echo after; done"
    process = client.start(session, ["sh", "-c", script], stdin=True, attach=False)
    wait_until(lambda: client.process_get(process=process.id).streams["stdout"][1], "it has spoken")
    command = ctl_argv(daemon, "attach", "--replay", "none", process.id)
    with program(command, stdout=subprocess.PIPE, cwd=REPO) as child:
        assert child.stdout is not None
        stdout = child.stdout.fileno()

        def heard() -> bool:
            process.write_stdin(b"\n")
            return bool(select.select([stdout], [], [], 0.1)[0])

        wait_until(heard, "it is attached")
        process.close_stdin()
        assert set(child.stdout.read().split()) == {b"after"}
        assert child.wait(60) == 0
    process.forget()


# -- a link that is lost -------------------------------------------------------------------------------------------


def test_keys_are_typed_once_over_a_link_that_is_cut_again_and_again(
    daemon: Daemon, session: str, tmp_path: Path
) -> None:
    keys = b"".join(b"%07d\n" % number for number in range(8192))
    script = (
        "import os, subprocess, hashlib\n"
        "subprocess.run(['stty', 'raw', '-echo'], check=True)\n"
        "print('ready', flush=True)\n"
        f"got = b''\nwhile len(got) < {len(keys)}: piece = os.read(0, 4096); got += piece; os.write(1, b'.' * len(piece))\n"
        "print(hashlib.sha256(got).hexdigest())\n"
    )
    chance = random.Random(8)
    cuts: list[Cut] = [("to_guest" if number % 2 else "to_host", chance.randrange(3000, 9000)) for number in range(8)]
    with (
        cutting_way(tmp_path, daemon.socket_path, [("to_host", 4000), *cuts]) as way,
        ctl_on_terminal(
            way, "run", "--session", session, "-t", "--detach-keys", "none", "--", "python3", "-c", script
        ) as terminal,
    ):
        terminal.wait_for(b"ready")
        terminal.wait_raw()
        for start in range(0, len(keys), 512):
            terminal.type(keys[start : start + 512])
        terminal.wait_for(hashlib.sha256(keys).hexdigest().encode())
        ended(terminal, 0)
        assert way.connections > 2


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a coworkd runs; what the launcher of one that was killed still keeps is ended by a last one."""
    made = tmp_path / "d"
    yield made
    with running_daemon(made):
        pass
    wait_until(lambda: not living(str(made)), "all of it has ended")


def test_a_shell_goes_on_when_coworkd_was_killed(place: Path) -> None:
    with running_daemon(place) as first:
        with client_of(first) as client:
            client.session_ensure(name="work")
        with ctl_on_terminal(first, "shell", *PS1, "work") as terminal:
            terminal.wait_for(PROMPT)
            say(terminal, b"kept=42; count() { for i in $(seq $1 $2); do echo n$i.; done; }")
            terminal.type(b"count 1 20; sleep 2; count 21 2000; echo counted\r")
            terminal.wait_for(b"n20.")
            first.child.kill()
            first.child.wait()
            terminal.wait_for(b"the link is lost")
            terminal.resize(39, 101)
            with running_daemon(place):
                terminal.wait_for(b"the link is there again")
                said = terminal.wait_for(b"counted\r\n", PROMPT)
                assert said.count(b".\r\n") == len(range(21, 2001))
                told = b"echo kept $kept $(stty size)"
                wait_until(lambda: b"kept 42 39 101" in say(terminal, told), "all of it is as it was, but for the size")
                terminal.type(b"exit 9\r")
                ended(terminal, 9)


def test_ctrl_c_gives_a_lost_link_up_and_the_way_back_is_told(place: Path) -> None:
    with running_daemon(place) as first, ctl_on_terminal(first, "shell", *PS1, "work") as terminal:
        terminal.wait_for(PROMPT)
        first.child.kill()
        first.child.wait()
        terminal.wait_for(b"the link is lost")
        terminal.type(b"\x03")
        said = ended(terminal, 125)
        assert b"it may run on" in said
        process = left_process(said)
    with running_daemon(place) as second, ctl_on_terminal(second, "attach", process) as terminal:
        terminal.wait_for(PROMPT)
        say(terminal, b"echo st''ill", b"still")
        terminal.type(b"exit\r")
        ended(terminal, 0)


def test_a_signal_gives_a_lost_link_up(place: Path) -> None:
    with running_daemon(place) as daemon, ctl_on_terminal(daemon, "shell", *PS1, "work") as terminal:
        terminal.wait_for(PROMPT)
        daemon.child.kill()
        daemon.child.wait()
        terminal.wait_for(b"the link is lost")
        os.kill(terminal.child.pid, signal.SIGTERM)
        assert b"it may run on" in ended(terminal, 128 + signal.SIGTERM)


def test_a_throw_away_session_ends_with_its_link_and_the_terminal_is_given_back(place: Path) -> None:
    with running_daemon(place) as daemon, ctl_on_terminal(daemon, "shell", *PS1) as terminal:
        terminal.wait_for(PROMPT)
        daemon.child.kill()
        daemon.child.wait()
        assert b"UNAVAILABLE" in ended(terminal, 125)
