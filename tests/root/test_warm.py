"""Sandboxes that wait for a command: that a command finds in one what it would have found in one of its own, and what becomes of those
that die, do not fit, or are in the way. The launcher for real, driven over its own socket.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.model import launch
from coworkd.model.limits import CgroupLimits, Rlimits
from coworkd.model.process import TtySize
from tests.root.launcher_talk import (
    ALLOW,
    UID,
    folder_request,
    open_launcher,
    session_request,
    sha256,
    spawn_request,
)
from tests.root.live import wait_until, when_steady
from tests.root.warm_house import House, children, command_line, launcher_pid, read_all

pytestmark = pytest.mark.needs("userns", "netns")
PROBE = (Path(__file__).parent / "probes" / "seen.py").read_text()
TTY = TtySize(rows=33, cols=77)
CHDIR, RECVMSG = {"x86_64": (80, 47), "aarch64": (49, 212)}[os.uname().machine]
NOTHING_LEFT = "nothing of it is left"
PINGS_NOBODY_READS = 600
"""Whose answers fill the socket."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_launcher(tmp_path) as started:
        talk = started.ready()
        assert isinstance(talk.ask(session_request(tmp_path / "home")), launch.Opened)
        yield House(started, talk)


# -- never a difference -------------------------------------------------------------------------------------------


def seen(run: Any, **fields: Any) -> dict[str, Any]:
    ended, said = run("/usr/bin/python3", "-I", "-c", PROBE, **fields)
    assert isinstance(ended, launch.Exited), ended
    assert ended.code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cwd": b"/tmp", "environment": (b"PATH=/usr/bin:/bin", b"PWD=nowhere", b"X=a=b", b"EMPTY=")},
        {"environment": ()},
        {"tty": TTY},
        {"limits": CgroupLimits(pids_max=50, memory_max_bytes=1 << 28)},
    ],
    ids=["plain", "cwd-and-env", "no-env", "tty", "limits"],
)
def test_a_command_finds_the_same_in_both(house: House, fields: dict[str, Any]) -> None:
    assert seen(house.warm, **fields) == seen(house.cold, **fields)


def test_a_command_is_the_same_for_who_looks_from_outside(house: House) -> None:
    def look(run: Any) -> tuple[Any, ...]:
        ended, said = run("sh", "-c", "echo out; echo err >&2; kill -TERM $$")
        return said, ended.code, ended.signal, ended.inferred, ended.killed, ended.oom_kills

    assert look(house.warm) == look(house.cold) == (b"out\n", None, signal.SIGTERM, False, False, 0)


@pytest.mark.parametrize(
    ("argv", "fields", "stage"),
    [
        (["/no/such"], {}, "not_found"),
        (["nosuch"], {}, "not_found"),
        (["/etc/passwd/x"], {}, "not_found"),
        (["/etc/passwd"], {}, "not_executable"),
        (["/tmp"], {}, "not_executable"),
        (["x" * 300], {}, "not_executable"),
        (["/tmp/foreign"], {}, "not_executable"),
        (["/tmp/binary"], {}, "not_executable"),
        (["/tmp/lost"], {}, "not_found"),
        (["foreign"], {"environment": (b"PATH=/none:/tmp",)}, "not_executable"),
        (["./foreign"], {"cwd": b"/tmp"}, "not_executable"),
        (["true"], {"cwd": b"/no/such"}, "bad_cwd"),
        (["true"], {"cwd": b"/etc/passwd"}, "bad_cwd"),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else None,
)
def test_what_does_not_start_is_told_alike(house: House, argv: list[str], fields: dict[str, Any], stage: str) -> None:
    house.cold(
        "sh",
        "-c",
        "cd /tmp; printf '\\177ELF\\001\\001xxxxxxxxxxxxxxxxxxxxxxx' >foreign; printf 'a\\0b' >binary; printf '#!/none\\n' >lost;"
        " chmod 755 foreign binary lost",
    )
    warm, _ = house.warm(*argv, **fields)
    cold, _ = house.cold(*argv, **fields)
    assert isinstance(warm, launch.StartError), warm
    assert (warm.stage, warm.errno, warm.message) == (cold.stage, cold.errno, cold.message)
    assert warm.stage == stage


def test_a_script_without_an_interpreter_runs_alike(house: House) -> None:
    house.cold("sh", "-c", "echo 'echo \"$0 $1\"' >/tmp/plain; chmod 755 /tmp/plain")
    for run in (house.warm, house.cold):
        assert run("/tmp/plain", "word")[1] == b"/tmp/plain word\n"
        assert run("plain", "word", environment=(b"PATH=/bin:/tmp",))[1] == b"/tmp/plain word\n"


def test_words_of_any_length_arrive(house: House) -> None:
    words = ["x" * 100_000] * 8
    script = 'printf "%s\\n" "$#" "${#1}" "${#V}"'
    environment = (b"PATH=/usr/bin:/bin", b"V=" + b"y" * 100_000)
    for run in (house.warm, house.cold):
        assert run("sh", "-c", script, "sh", *words, environment=environment)[1] == b"8\n100000\n100000\n"


def test_stdin_reaches_the_command_and_ends(house: House) -> None:
    house.make_wait()
    request = house.request("cat", stdin=True)
    spawned = house.talk.start(request)
    fds = dict(zip(spawned.fds, house.talk.fds[-len(spawned.fds) :], strict=True))
    os.write(fds["stdin"], b"through")
    house.talk.drop_fds_but(fds["stdout"])
    house.talk.ask(launch.Release(id=0, process=request.process, name="stdin"))
    assert read_all(fds["stdout"]) == b"through"
    assert house.talk.wait(launch.Exited).code == 0


@pytest.mark.parametrize("end", ["os._exit(3)", "os.execv('/bin/sh', ['sh', '-c', 'exit 3'])"])
def test_the_end_is_told_alike_where_the_first_thread_has_gone_before(house: House, end: str) -> None:
    program = (
        "import ctypes, os, threading, time; leave = ctypes.CDLL(None).pthread_exit\n"
        f"def last():\n while open('/proc/self/stat').read().split()[2] != 'Z': time.sleep(0.01)\n {end}\n"
        "threading.Thread(target=last).start(); leave(None)"
    )
    for run in (house.warm, house.cold):
        ended, said = run("/usr/bin/python3", "-c", program)
        assert (ended.code, ended.signal, ended.inferred, said) == (3, None, False, b"")


def test_what_the_shim_has_used_is_not_told_as_the_commands(house: House) -> None:
    cpu_s = [ended.rusage.user_s + ended.rusage.system_s for ended, _ in (house.warm("true") for _ in range(5))]
    faults = [house.warm("true")[0].rusage.minor_faults, house.cold("true")[0].rusage.minor_faults]
    shim = sum(
        int(word) for word in Path(f"/proc/{house.waiting_pids()[2]}/stat").read_text().rpartition(")")[2].split()[7:8]
    )
    assert min(cpu_s) < 0.02
    assert faults[0] < faults[1] + shim / 2


# -- the one that waits -------------------------------------------------------------------------------------------


def test_it_waits_behind_every_wall_and_holds_nothing(house: House) -> None:
    for pid in house.waiting_pids():
        fields = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert fields["Uid"].split() == [str(UID)] * 4
        assert fields["NoNewPrivs"] == "1"
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert (fields["CapEff"], fields["CapBnd"], fields["Seccomp"]) == ("0" * 16, "0" * 16, "2")
    assert fields.get("Seccomp_filters", "2") == "2"
    opened = {int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert sorted(opened) == [0, 1, 2, 7]
    assert (opened[0], opened[1]) == ("/dev/null", "/dev/null")
    assert Path(f"/proc/{pid}/environ").read_bytes() in (b"PWD=/\0", b"")


def test_no_other_command_of_the_session_can_reach_it(house: House) -> None:
    monitor, init, shim = house.waiting_pids()
    script = (
        f"for pid in {monitor} {init} {shim}; do kill -0 $pid 2>/dev/null && echo hit; ls /proc/$pid; done; echo done"
    )
    assert house.beside("sh", "-c", script) == b"done\n"
    link = os.readlink(f"/proc/{shim}/fd/7").removeprefix("socket:[").removesuffix("]")
    assert link not in house.beside("cat", "/proc/net/unix").decode().split()
    assert house.waiting_pids() == (monitor, init, shim)


@pytest.mark.parametrize("who", [0, 1, 2], ids=["monitor", "init", "shim"])
def test_one_that_is_killed_while_it_waits_costs_no_command(house: House, who: int) -> None:
    pids = house.waiting_pids()
    os.kill(pids[who], signal.SIGKILL)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)
    assert house.run(house.request("echo", "still"))[1] == b"still\n"
    wait_until(lambda: house.counts.waiting == 1, "another waits")
    assert house.counts.died == 1
    assert house.run(house.request("echo", "again"))[1] == b"again\n"


def test_one_that_is_killed_in_the_very_moment_costs_no_command(house: House) -> None:
    for _ in range(5):
        os.kill(house.waiting_pids()[2], signal.SIGKILL)
        assert house.run(house.request("echo", "still"))[1] == b"still\n"


@pytest.mark.parametrize("tty", [None, TTY])
def test_one_that_dies_between_being_taken_and_executing_its_command_is_changed_for_another(
    house: House, tty: TtySize | None
) -> None:
    pids = house.waiting_pids()
    request = house.request("echo", "still", tty=tty, environment=(b"PATH=/bin",))
    spawned = house.talk.ask(request)
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)
    ended, said = house.let_in(request, spawned)
    assert isinstance(ended, launch.Exited), ended
    assert (ended.code, said.strip()) == (0, b"still")


def test_one_that_does_not_listen_any_more_is_ended_when_its_command_goes_elsewhere(house: House) -> None:
    pids = house.waiting_pids()
    request = house.request("echo", "still")
    os.kill(pids[2], signal.SIGSTOP)
    with socket.socket(fileno=take_descriptor(pids[2], 7)) as link:
        link.shutdown(socket.SHUT_RDWR)
    spawned = house.talk.ask(request)
    assert house.let_in(request, spawned)[1] == b"still\n"
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)


def take_descriptor(pid: int, number: int) -> int:
    """A copy of another process's (pidfd_getfd(2))."""
    pidfd = os.pidfd_open(pid)
    fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return int(fd)


def test_a_command_that_is_abandoned_before_it_was_let_in_leaves_nothing(house: House) -> None:
    pids = house.waiting_pids()
    request = house.request("touch", "/tmp/was-here")
    house.talk.ask(request)
    assert isinstance(house.talk.ask(launch.Abandon(id=0, process=request.process)), launch.Done)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)
    house.talk.let_in(request.process)
    assert b"was-here" not in house.cold("ls", "/tmp")[1]


def test_a_command_whose_descriptors_cannot_wait_for_a_supervisor_that_reads_nothing_leaves_nothing(
    house: House,
) -> None:
    house.make_wait()
    pid, talk = launcher_pid(house.launcher), house.talk
    before, _, _ = held_when_steady(house)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    refused = 0
    for spare in range(2, 9):
        house.make_wait()
        used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
        free = [number for number in range(len(used) + spare + 1) if number not in used]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], limits[1]))
        for _ in range(PINGS_NOBODY_READS):
            talk.tell(launch.Ping(id=0))
        request = house.request("true")
        number = talk.tell(request)
        wait_until(lambda: not any(fcntl.ioctl(talk.link, termios.TIOCOUTQ, bytes(4))), "the launcher has it")
        answer = talk.heard_of(number)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        if isinstance(answer, launch.Spawned):
            talk.ask(launch.Abandon(id=0, process=request.process))
        else:
            refused += answer.message.startswith("Spawn:")
        talk.drop_fds()
        talk.drop_gates()
        talk.heard.clear()
    assert refused
    wait_until(lambda: held_when_steady(house)[0] <= before, "no descriptor is left of them")
    assert sum(b"/proc/self/fd/8" in command_line(each) for each in children(pid)) == 1, NOTHING_LEFT


def test_a_command_that_is_killed_before_it_was_let_in_never_runs(house: House) -> None:
    house.make_wait()
    request = house.request("touch", "/tmp/was-here")
    spawned = house.talk.ask(request)
    house.talk.ask(launch.Kill(id=0, process=request.process))
    ended, _ = house.let_in(request, spawned)
    assert (type(ended), ended.killed) == (launch.Exited, True)
    assert b"was-here" not in house.cold("ls", "/tmp")[1]


def test_a_signal_before_the_command_is_refused_and_ends_nothing(house: House) -> None:
    house.make_wait()
    request = house.request("echo", "still")
    spawned = house.talk.ask(request)
    refused = house.talk.ask(launch.Signal(id=0, process=request.process, signal=signal.SIGTERM))
    assert (type(refused), refused.errno) == (launch.Refused, errno.ESRCH)
    assert house.let_in(request, spawned)[1] == b"still\n"
    assert house.counts.died == 0


def test_a_signal_reaches_a_command_that_runs_and_was_not_told_of_yet(house: House) -> None:
    house.make_wait()
    request = house.request("sh", "-c", "echo; exec sleep 60", one_shot=True)
    spawned = house.talk.ask(request)
    stdout = house.talk.take(spawned, "stdout")
    house.talk.let_in(request.process)
    assert os.read(stdout, 1) == b"\n"
    answer = house.talk.ask(launch.Signal(id=0, process=request.process, signal=signal.SIGTERM))
    assert isinstance(answer, launch.Done), answer
    assert house.talk.wait(launch.Exited).signal == signal.SIGTERM
    os.close(stdout)


@pytest.mark.parametrize("name", ["stderr", "stdout", "stderr_spool"])
def test_a_descriptor_that_was_released_before_is_missed_by_nobody(house: House, name: str) -> None:
    pids = house.waiting_pids()
    moved, lost = house.request("echo", "still"), house.request("/no/such", warm=0)
    for request in (moved, lost):
        spawned = house.talk.ask(request)
        assert isinstance(house.talk.ask(launch.Release(id=0, process=request.process, name=name)), launch.Done)
        if request is moved:
            os.kill(pids[1], signal.SIGKILL)
            wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)
        ended, _ = house.let_in(request, spawned)
        assert isinstance(ended, launch.Exited if request is moved else launch.StartError), ended


def test_a_supervisor_that_goes_takes_with_it_what_it_has_not_let_in(house: House) -> None:
    pids = house.waiting_pids()
    house.talk.ask(house.request("touch", "/tmp/was-here"))
    house.talk.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)


# -- what changes between -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"filters": (sha256(ALLOW), sha256(ALLOW))},
        {"rlimits": Rlimits(nofile=99, nproc=200)},
        {"limits": CgroupLimits(memory_max_bytes=16 << 20)},
    ],
    ids=["filters", "rlimits", "little-memory"],
)
def test_what_would_be_another_sandbox_has_one_of_its_own(house: House, change: dict[str, Any]) -> None:
    house.make_wait()
    before = house.counts
    ended, said = house.run(house.request("sh", "-c", "ulimit -n", **change))
    assert (ended.code, house.counts.taken) == (0, before.taken)
    assert house.counts.cold_instead == before.cold_instead + 1
    if "rlimits" in change:
        assert said == b"99\n"
        assert house.warm("sh", "-c", "ulimit -n", **change)[1] == b"99\n"


@pytest.mark.parametrize("answer", [0x00050001, 0x80000000], ids=["eperm", "kill"])
@pytest.mark.parametrize("number", [CHDIR, RECVMSG], ids=["chdir", "recvmsg"])
def test_a_filter_that_a_shim_cannot_live_with_costs_no_command(house: House, number: int, answer: int) -> None:
    program = denying(number, answer)
    assert isinstance(house.talk.ask(launch.PutFilter(id=0, sha256=sha256(program), bpf=program)), launch.Done)
    filters = (sha256(ALLOW), sha256(program))
    for _ in range(3):
        ended, said = house.run(house.request("/bin/echo", "still", filters=filters))
        assert isinstance(ended, launch.Exited), ended
        assert (ended.code, said) == (0, b"still\n")
        time.sleep(0.1)  # now one is built that comes up or does not


def denying(number: int, answer: int) -> bytes:
    """A filter that answers one system call so, and allows all others."""
    instructions = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, answer))
    return b"".join(struct.pack("=HBBI", *each) for each in instructions) + ALLOW


def test_a_folder_that_comes_and_goes_is_seen_by_the_next_command(house: House, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("here")
    os.chmod(tmp_path, 0o755)
    place = "/sessions/bob/mnt/work"
    look = ("sh", "-c", f"grep {place} /proc/self/mounts; cat {place}/file 2>&1; :")
    before = house.warm(*look)[1]
    house.make_wait()
    dropped = house.counts.dropped
    assert isinstance(house.talk.ask(folder_request(source)), launch.FolderMounted)
    assert house.counts.dropped > dropped
    with_folder = house.warm(*look)[1]
    assert b"here" in with_folder
    assert with_folder == house.cold(*look)[1]
    assert isinstance(house.talk.ask(launch.UnmountFolder(id=0, session="bob", name="work")), launch.FolderUnmounted)
    assert house.warm(*look)[1] == before


def test_what_waits_stays_when_a_coworkd_that_comes_up_asks_for_all_sessions(house: House, tmp_path: Path) -> None:
    """The pool keeps something for the sessions used last: to be asked for is no use."""
    others = [session_request(tmp_path / f"home{number}", name=f"s{number}") for number in range(9)]
    for each in others:
        assert isinstance(house.talk.ask(each), launch.Opened)
    house.make_wait()
    for each in others:
        assert isinstance(house.talk.ask(each), launch.Opened)
    assert house.counts.waiting == 1


def test_a_session_that_closes_takes_what_waits_with_it(house: House) -> None:
    pids = house.waiting_pids()
    assert isinstance(house.talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    if house.launcher.cgroup is not None:
        assert not os.path.exists(f"{house.launcher.cgroup}/s-bob")


@pytest.mark.needs("cgroup2")
@pytest.mark.parametrize("warm", [0, 1])
def test_a_session_that_is_paused_holds_nothing_of_another(house: House, tmp_path: Path, warm: int) -> None:
    talk = house.talk
    assert isinstance(talk.ask(session_request(tmp_path / "other", name="eve", uid=UID + 1)), launch.Opened)
    house.make_wait()
    request = house.request("echo", "still")
    spawned = talk.ask(request)
    output = talk.take(spawned, "stdout")
    other = spawn_request(["sleep", "1000"], process="e1", name="eve", uid=UID + 1, warm=warm)
    talk.start(other)
    talk.drop_fds()
    assert isinstance(talk.ask(launch.Freeze(id=0, session="eve", frozen=True)), launch.Frozen)
    refused = talk.ask(structs.replace(other, process="e2"))
    assert (type(refused), refused.stage) == (launch.Refused, "session")
    time.sleep(0.2)  # now is when something would be made for its next command
    talk.let_in(request.process)
    assert os.read(output, 99) == b"still\n"
    assert select.select([output], [], [], 10)[0], "a child that froze has the other end"
    os.close(output)
    talk.wait(launch.Exited)
    talk.ask(launch.Freeze(id=0, session="eve", frozen=False))
    assert isinstance(talk.ask(launch.Kill(id=0, process="e1")), launch.Done)
    assert talk.wait(launch.Exited).killed


def test_a_launcher_that_is_killed_leaves_nothing_that_waits(house: House) -> None:
    pids = house.waiting_pids()
    os.kill(launcher_pid(house.launcher), signal.SIGKILL)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), NOTHING_LEFT)


# -- many ---------------------------------------------------------------------------------------------------------


def held_when_steady(house: House) -> tuple[int, int, int]:
    """The launcher's descriptors, children and groups of commands, with one that waits and the next one's descriptors laid out."""

    def held() -> tuple[int, int, int]:
        pid = launcher_pid(house.launcher)
        groups = len(list(Path(house.launcher.cgroup or "/nowhere").glob("s-bob/commands/p-*")))
        return len(os.listdir(f"/proc/{pid}/fd")), len(children(pid)), groups

    house.make_wait()
    house.beside("true")  # after whose end they are
    return when_steady(held)


def test_many_starts_leave_nothing(house: House) -> None:
    for _ in range(3):
        house.warm("true")
    before = held_when_steady(house)
    for _ in range(60):
        house.warm("true")
    assert house.counts.taken >= 60
    assert all(now <= then for now, then in zip(held_when_steady(house), before, strict=True))


def test_a_crowd_finds_what_waits_and_the_rest_their_own(house: House) -> None:
    house.make_wait()
    requests: Sequence[launch.Spawn] = [house.request("sh", "-c", "exit 7") for _ in range(12)]
    # All before the first answer: where they come with pauses, another sandbox is built meanwhile.
    numbers = [house.talk.tell(request) for request in requests]
    for request, number in zip(requests, numbers, strict=True):
        assert isinstance(house.talk.heard_of(number), launch.Spawned)
        house.talk.let_in(request.process)
    ends = [house.talk.wait(launch.Exited, launch.StartError) for _ in requests]
    house.talk.drop_fds()
    assert {end.code for end in ends} == {7}
    assert {end.process for end in ends} == {request.process for request in requests}
    assert house.counts.taken == 1


def test_two_wait_where_two_are_wanted(house: House) -> None:
    house.run(structs.replace(house.request("true"), warm=2))
    wait_until(lambda: house.counts.waiting == 2, "two wait")
