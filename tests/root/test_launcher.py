"""The launcher for real, driven over its own socket: what it refuses, what it keeps, what it builds, what it leaves."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.model import launch
from coworkd.model.limits import Rlimits
from coworkd.model.process import TtySize
from coworkd.model.session import FolderGrant
from coworkd.system import cgroup
from tests.root.launcher_talk import (
    ALLOW,
    UID,
    Started,
    Talk,
    open_launcher,
    own_cgroup,
    session_request,
    sha256,
    spawn_request,
)
from tests.root.live import fresh_mark, living, wait_until

pytestmark = pytest.mark.needs("userns", "netns")


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    with open_launcher(tmp_path) as started:
        yield started


@pytest.fixture
def talk(launcher: Started, tmp_path: Path) -> Talk:
    """A supervisor with the session `bob` open."""
    made = launcher.ready()
    opened = made.ask(session_request(tmp_path / "home"))
    assert isinstance(opened, launch.Opened), opened
    return made


def refused(reply: Any) -> launch.Refused:
    assert isinstance(reply, launch.Refused), reply
    return reply


def sh(talk: Talk, script: str, **fields: Any) -> str:
    """The output of a shell in the sandbox, which ends well."""
    ended, output = talk.run(spawn_request(["sh", "-c", script], **fields))
    assert isinstance(ended, launch.Exited), ended
    assert (ended.code, ended.signal) == (0, None), output
    talk.ask(launch.Forget(id=0, process=ended.process))
    return output.decode()


# -- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"uid": 0}, {"gid": 0}, {"uid": 1000, "gid": 1000}])
def test_a_session_of_a_system_uid_is_refused(launcher: Started, tmp_path: Path, fields: dict[str, Any]) -> None:
    reply = refused(launcher.ready().ask(session_request(tmp_path / "home", **fields)))
    assert (reply.stage, reply.errno) == ("uid", errno.EPERM)


@pytest.mark.parametrize("name", ["../../x", "", "a/b", "x" * 65, "."])
def test_a_session_whose_name_is_a_path_is_refused(launcher: Started, tmp_path: Path, name: str) -> None:
    request = structs.replace(session_request(tmp_path / "home"), session=name)
    assert refused(launcher.ready().ask(request)).errno == errno.EINVAL


def test_an_open_session_is_not_opened_for_another_uid(talk: Talk, tmp_path: Path) -> None:
    assert isinstance(talk.ask(session_request(tmp_path / "home")), launch.Opened)
    assert refused(talk.ask(session_request(tmp_path / "home", uid=UID + 1, gid=UID + 1))).stage == "uid"


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 0, "gid": 0},
        {"uid": UID + 1},
        {"gid": UID + 1},
        {"filters": ("f" * 64, "f" * 64)},
        {"filters": (sha256(ALLOW), "")},
        {"session": "eve"},
        {"process": "../p"},
        {"process": ""},
        {"argv": ()},
        {"argv": (b"",)},
        {"argv": (b"true", b"a\0b")},
        {"cwd": b"/\0tmp"},
        {"environment": (b"PATH=/bin\0/sbin",)},
        {"bwrap_args": (b"--chdir\0/",)},
        {"rlimits": Rlimits(nofile=3, nproc=10)},
    ],
)
def test_a_spawn_that_may_not_be_is_refused(talk: Talk, fields: dict[str, Any]) -> None:
    assert refused(talk.ask(structs.replace(spawn_request(["true"]), **fields))).stage == "policy_denied"


def test_a_process_is_there_once(talk: Talk) -> None:
    talk.start(spawn_request(["sleep", fresh_mark()]))
    assert "exists already" in refused(talk.ask(spawn_request(["true"]))).message


@pytest.mark.parametrize("program", [b"", b"1234567", ALLOW + b"x"])
def test_a_program_that_is_none_is_refused(launcher: Started, program: bytes) -> None:
    talk = launcher.ready()
    request = launch.PutFilter(id=0, sha256=sha256(program), bpf=program)
    assert refused(talk.ask(request)).stage == "filter"
    assert refused(talk.ask(structs.replace(request, bpf=ALLOW))).stage == "filter"


@pytest.mark.parametrize(
    "request_",
    [
        launch.Signal(id=0, process="no", signal=15),
        launch.Kill(id=0, process="no"),
        launch.Release(id=0, process="no", name="stdin"),
        launch.Keep(id=0, process="no", name="tty"),
        launch.Abandon(id=0, process="no"),
    ],
)
def test_words_about_nobody_are_refused(launcher: Started, request_: launch.Request) -> None:
    assert refused(launcher.ready().ask(request_)).errno == errno.ESRCH


def test_words_that_undo_are_done_already(launcher: Started) -> None:
    talk = launcher.ready()
    assert isinstance(talk.ask(launch.Forget(id=0, process="no")), launch.Done)
    assert isinstance(talk.ask(launch.CloseSession(id=0, session="no")), launch.Done)
    assert isinstance(talk.ask(launch.Ping(id=0)), launch.Done)


@pytest.mark.parametrize("packet", [b"junk", b"\0", b"\xc1", bytes(70_000), b"\x81\xa4type\xa4ping"])
def test_a_packet_that_is_no_word_ends_the_conversation_and_no_more(
    talk: Talk, launcher: Started, packet: bytes
) -> None:
    mark = fresh_mark()
    talk.start(spawn_request(["sleep", mark]))
    talk.wait(launch.Started)
    fd = os.memfd_create("stray")
    socket.send_fds(talk.link, [packet], [fd] if packet != b"\0" else [])
    os.close(fd)
    with pytest.raises((EOFError, ConnectionResetError)):
        talk.next()
    after = launcher.ready()
    assert after.wait(launch.Adopted).process == "p1"
    assert living(mark)


def test_a_second_supervisor_is_sent_away_while_the_first_lives(talk: Talk, launcher: Started) -> None:
    with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
        launcher.talk().ask(launch.Ping(id=0))
    assert isinstance(talk.ask(launch.Ping(id=0)), launch.Done)


def test_a_supervisor_that_comes_back_at_once_is_let_in(launcher: Started) -> None:
    for _ in range(50):
        launcher.talk().close()
        again = launcher.talk()
        assert isinstance(again.ask(launch.Ping(id=0)), launch.Done)
        again.close()


# -- why a session cannot be opened -------------------------------------------------------------------------------


def test_a_required_folder_that_is_missing_refuses_the_session(launcher: Started, tmp_path: Path) -> None:
    grant = FolderGrant(name="src", source=str(tmp_path / "nothing"), mode="ro")
    reply = refused(launcher.ready().ask(session_request(tmp_path / "home", grant)))
    assert (reply.stage, reply.errno) == (f"bind {tmp_path}/nothing", errno.ENOENT)


def test_an_optional_folder_that_is_missing_is_told_each_time(launcher: Started, tmp_path: Path) -> None:
    grant = FolderGrant(name="src", source=str(tmp_path / "nothing"), mode="ro", required=False)
    talk = launcher.ready()
    for _ in range(2):
        opened = talk.ask(session_request(tmp_path / "home", grant))
        assert isinstance(opened, launch.Opened)
        assert "/sessions/bob/mnt/src" in opened.missing


@pytest.mark.parametrize("where", ["link", "link/below"])
def test_a_folder_behind_a_link_refuses_the_session(launcher: Started, tmp_path: Path, where: str) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    grant = FolderGrant(name="src", source=str(tmp_path / where), mode="ro")
    reply = refused(launcher.ready().ask(session_request(tmp_path / "home", grant)))
    assert reply.errno in (errno.ELOOP, errno.ENOTDIR)


def test_an_absurd_path_ends_nothing_but_its_own_request(launcher: Started, tmp_path: Path) -> None:
    absurd = launch.TreeBind(source=b"/" + b"x" * 1_000_000, path=b"/a", read_only=True)
    talk = launcher.ready()
    request = session_request(tmp_path / "home")
    reply = refused(talk.ask(structs.replace(request, tree=(absurd,))))
    assert (reply.errno, len(reply.message) < 10_000) == (errno.ENAMETOOLONG, True)
    assert isinstance(talk.ask(request), launch.Opened)


def test_a_home_whose_mnt_is_a_planted_link_leads_nowhere(launcher: Started, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    request = session_request(tmp_path / "home")
    (tmp_path / "home" / "mnt").rmdir()
    (tmp_path / "home" / "mnt").symlink_to(victim)
    reply = refused(launcher.ready().ask(request))
    assert reply.errno in (errno.ELOOP, errno.ENOTDIR)
    assert list(victim.iterdir()) == []


@pytest.mark.needs("cgroup2")
def test_a_session_that_was_not_opened_leaves_no_cgroup(launcher: Started, tmp_path: Path) -> None:
    grant = FolderGrant(name="src", source=str(tmp_path / "nothing"), mode="ro")
    talk = launcher.ready()
    refused(talk.ask(session_request(tmp_path / "home", grant)))
    assert sessions_cgroups(launcher) == []


@pytest.mark.needs("cgroup2")
def test_a_cgroup_that_is_half_made_is_taken_away(launcher: Started, tmp_path: Path) -> None:
    talk = launcher.ready()
    request = session_request(tmp_path / "home")
    limit = Path(f"{launcher.cgroup}/cgroup.max.descendants")
    limit.write_text(str(len(list(Path(f"{launcher.cgroup}").glob("*/"))) + 1))
    assert refused(talk.ask(request)).errno == errno.EAGAIN
    assert sessions_cgroups(launcher) == []
    limit.write_text("max")
    assert isinstance(talk.ask(request), launch.Opened)


@pytest.mark.needs("cgroup2")
def test_a_session_whose_supervisor_goes_before_it_stands_leaves_no_cgroup(launcher: Started, tmp_path: Path) -> None:
    for _ in range(10):
        leaving = launcher.ready()
        leaving.tell(session_request(tmp_path / "home"))
        leaving.close()
        talk = launcher.ready()
        taken = talk.ask(launch.Adopt(id=0, version="test"))
        assert isinstance(taken, launch.TakenOver)
        for name in taken.sessions:  # it stood already
            talk.ask(launch.CloseSession(id=0, session=name))
        assert sessions_cgroups(launcher) == []
        talk.close()


@pytest.mark.needs("cgroup2")
def test_a_sessions_cgroup_goes_when_what_lives_in_it_has_ended(talk: Talk, launcher: Started) -> None:
    strange = Path(f"{launcher.cgroup}/s-bob/strange")
    strange.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as lodger:
        (strange / "cgroup.procs").write_text(str(lodger.pid))
        assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
        assert strange.exists()
        lodger.kill()
    wait_until(lambda: sessions_cgroups(launcher) == [], "the cgroup goes, too")


def sessions_cgroups(launcher: Started) -> list[str]:
    return sorted(str(path) for path in Path(f"{launcher.cgroup}").glob("s-*"))


# -- what it builds -----------------------------------------------------------------------------------------------


def test_a_sandbox_sees_its_own_and_nothing_else(talk: Talk, tmp_path: Path) -> None:
    assert set(sh(talk, "ls /").split()) <= {
        "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "sessions", "sys", "tmp", "usr",
        "var",
    }  # fmt: skip
    assert sh(talk, "ls /sessions; ls /sessions/bob; cat /etc/passwd").split("\n")[:2] == ["bob", "mnt"]
    assert sh(talk, "cut -d: -f1 /etc/passwd /etc/group") == "bob\nbob\n"
    assert "0 1 2 3" in sh(talk, "ls /proc/self/fd | tr '\\n' ' '")
    assert sh(talk, "id -u; id -G; hostname") == f"{UID}\n{UID}\nclaude\n"
    assert str(tmp_path) not in sh(talk, "cat /proc/self/mountinfo | cut -d' ' -f5; env")
    assert sh(talk, "cat /proc/1/cmdline 2>/dev/null; :") == ""


def test_a_sandbox_has_no_privilege_and_two_filters(talk: Talk) -> None:
    status = dict(line.split(":\t", 1) for line in sh(talk, "cat /proc/self/status").splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", "2")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
    assert sh(talk, "cat /proc/self/oom_score_adj; umask; ulimit -c") == "100\n0022\n0\n"
    assert sh(talk, "cat /proc/net/dev | grep -c :") == "1\n"


@pytest.mark.parametrize(
    "place", ["/", "/usr", "/etc", "/var", "/dev", "/proc", "/sessions", "/sessions/bob/mnt", "/sys"]
)
def test_a_sandbox_writes_nowhere_but_in_its_places(talk: Talk, place: str) -> None:
    assert sh(talk, f"mkdir {place}/x 2>/dev/null || echo no") == "no\n"


def test_a_sandbox_writes_in_its_places_and_they_last(talk: Talk, tmp_path: Path) -> None:
    sh(talk, "echo kept > ~/file; echo kept > /tmp/file; echo kept > /dev/shm/file")
    assert sh(talk, "cat ~/file /tmp/file /dev/shm/file") == "kept\n" * 3
    assert os.stat(tmp_path / "home" / "file").st_uid == UID
    assert sh(talk, "mv ~/mnt ~/gone 2>/dev/null || echo no") == "no\n"


def test_tmp_is_bounded(talk: Talk) -> None:
    assert "No space left" in sh(talk, "dd if=/dev/zero of=/tmp/big bs=1M count=9 2>&1 | cat")


@pytest.mark.parametrize(("mode", "said"), [("ro", "no"), ("rwd", "yes")])
def test_a_folder_shows_as_the_sessions_and_keeps_its_owner(
    launcher: Started, tmp_path: Path, mode: Any, said: str
) -> None:
    source = tmp_path / "src"
    source.mkdir(mode=0o755)
    (source / "file").write_text("in the folder\n")
    os.chown(source, 12_345, 12_345)
    talk = launcher.ready()
    opened = talk.ask(session_request(tmp_path / "home", FolderGrant(name="src", source=str(source), mode=mode)))
    assert isinstance(opened, launch.Opened), opened
    assert sh(talk, "cat ~/mnt/src/file") == "in the folder\n"
    if opened.degraded:
        assert "keeps its owner" in opened.degraded[0]
        return
    assert sh(talk, "stat -c %u ~/mnt/src") == f"{UID}\n"
    assert sh(talk, "touch ~/mnt/src/new 2>/dev/null && echo yes || echo no") == f"{said}\n"
    if said == "yes":
        assert (source / "new").stat().st_uid == 12_345


def test_a_link_planted_in_a_home_reaches_nothing_outside(talk: Talk, tmp_path: Path) -> None:
    """CVE-2026-87766 and its kin: whatever a session plants, the next sandbox is built beside it."""
    sh(talk, "ln -s /oldroot/etc ~/a; ln -s ../../../../etc ~/b; ln -s /proc/1/root ~/c")
    before = set(os.listdir(tmp_path))
    assert sh(talk, "cut -d: -f1 ~/b/passwd; ls ~/a/ 2>/dev/null || echo none") == "bob\nnone\n"
    assert set(os.listdir(tmp_path)) == before


# -- lives and ends -----------------------------------------------------------------------------------------------


def test_nothing_runs_before_its_gate_is_open_and_an_abandoned_one_never(talk: Talk, tmp_path: Path) -> None:
    spawned = talk.ask(spawn_request(["touch", "/sessions/bob/ran"]))
    assert isinstance(spawned, launch.Spawned)
    assert isinstance(talk.ask(launch.Abandon(id=0, process="p1")), launch.Done)
    sh(talk, "true", process="p2")
    assert not (tmp_path / "home" / "ran").exists()


def test_the_exact_end_is_told_with_rusage(talk: Talk) -> None:
    ended, _ = talk.run(spawn_request(["sh", "-c", "exit 3"]))
    assert (ended.code, ended.signal) == (3, None)
    assert ended.rusage.max_rss_bytes > 100_000
    ended, _ = talk.run(spawn_request(["sh", "-c", "kill -9 $$"], process="p2"))
    assert (ended.code, ended.signal) == (None, signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "stage", "number"), [(["/no/such"], "not_found", 2), (["/etc/passwd"], "not_executable", 13)]
)
@pytest.mark.parametrize("tty", [None, TtySize(rows=1, cols=1)])
def test_a_command_that_cannot_run_is_told_by_stage(
    talk: Talk, argv: list[str], stage: str, number: int, tty: TtySize | None
) -> None:
    talk.start(spawn_request(argv, tty=tty))
    error = talk.wait(launch.StartError, launch.Exited, launch.Started)
    assert isinstance(error, launch.StartError), error
    assert (error.stage, error.errno) == (stage, number)
    assert isinstance(talk.ask(launch.Forget(id=0, process="p1")), launch.Done)


def test_a_signal_goes_to_the_command_and_kill_takes_the_whole_tree(talk: Talk) -> None:
    mark = fresh_mark()
    talk.start(spawn_request(["sh", "-c", f"trap 'exit 7' TERM; setsid sleep {mark} & while :; do sleep 0.05; done"]))
    talk.wait(launch.Started)
    wait_until(lambda: len(living(mark)) >= 4, "not all came: monitor, init, shell and sleep")
    assert refused(talk.ask(launch.Forget(id=0, process="p1"))).errno == errno.EBUSY
    assert refused(talk.ask(launch.CloseSession(id=0, session="bob"))).errno == errno.EBUSY
    assert isinstance(talk.ask(launch.Signal(id=0, process="p1", signal=15)), launch.Done)
    assert talk.wait(launch.Exited).code == 7
    wait_until(lambda: not living(mark), "a child outlived its command")
    talk.start(spawn_request(["sh", "-c", f"trap '' TERM; sleep {mark}"], process="p2"))
    talk.wait(launch.Started)
    assert isinstance(talk.ask(launch.Kill(id=0, process="p2")), launch.Done)
    ended = talk.wait(launch.Exited)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, True)
    wait_until(lambda: not living(mark), "a child outlived the kill")
    assert refused(talk.ask(launch.Signal(id=0, process="p2", signal=15))).errno == errno.ESRCH


def test_a_released_stdin_is_an_end_of_file(talk: Talk) -> None:
    spawned = talk.start(spawn_request(["cat"], stdin=True))
    stdin = talk.take(spawned, "stdin")
    os.write(stdin, b"some")
    os.close(stdin)
    assert isinstance(talk.ask(launch.Release(id=0, process="p1", name="stdin")), launch.Done)
    assert talk.wait(launch.Exited).code == 0


def test_what_is_kept_comes_back_to_the_next_supervisor(talk: Talk, launcher: Started) -> None:
    talk.start(spawn_request(["sh", "-c", "echo early; sleep 0.1; echo late"]))
    talk.wait(launch.Started)
    kept = os.memfd_create("kept")
    assert isinstance(talk.ask(launch.Keep(id=0, process="p1", name="mine"), kept), launch.Done)
    assert refused(talk.ask(launch.Keep(id=0, process="p1", name="mine"), kept)).stage == "keep"
    assert refused(talk.ask(launch.Keep(id=0, process="p1", name="none"))).stage == "keep"
    os.close(kept)
    talk.close()
    after = launcher.ready()
    adopted = after.wait(launch.Adopted)
    assert (adopted.process, adopted.session, adopted.argv[0]) == ("p1", "bob", b"sh")
    assert adopted.started is not None
    assert adopted.spawned.fds[-1] == "mine"
    assert os.readlink(f"/proc/self/fd/{after.fds[-1]}") == "/memfd:kept (deleted)"
    with open(after.take(adopted.spawned, "stdout"), "rb") as stdout:
        assert stdout.read() == b"early\nlate\n"
    if adopted.exited is None:
        assert after.wait(launch.Exited).code == 0
    assert isinstance(after.ask(launch.Forget(id=0, process="p1")), launch.Done)
    after.close()
    assert not [one for one in launcher.ready().heard if isinstance(one, launch.Adopted)]


def test_who_was_not_let_in_is_told_to_the_next_supervisor_as_never_started(talk: Talk, launcher: Started) -> None:
    mark = fresh_mark()
    talk.ask(spawn_request(["sleep", mark]))
    talk.close()
    wait_until(lambda: not living(mark), "a command without a supervisor was let in, or its sandbox stays")
    after = launcher.ready()
    adopted = after.wait(launch.Adopted)
    failed = adopted.start_error or after.wait(launch.StartError)
    assert (adopted.process, adopted.started, adopted.exited) == ("p1", None, None)
    assert (failed.stage, "let the command in" in failed.message) == ("sandbox_setup", True)
    assert isinstance(after.ask(launch.Forget(id=0, process="p1")), launch.Done)


def test_quit_leaves_nothing(talk: Talk, launcher: Started) -> None:
    mark = fresh_mark()
    for number in range(3):
        talk.start(spawn_request(["sleep", mark], process=f"p{number}"))
    wait_until(lambda: len(living(mark)) >= 3, "not all came")
    assert isinstance(talk.ask(launch.Quit(id=0)), launch.Done)
    assert launcher.child.wait(60) == 0
    assert not living(mark)
    assert not os.path.exists(launcher.path)
    assert launcher.cgroup is None or not os.path.exists(launcher.cgroup)
    assert str(launcher.directory) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_ends_takes_every_command_with_it(talk: Talk, launcher: Started, how: signal.Signals) -> None:
    mark = fresh_mark()
    talk.start(spawn_request(["sh", "-c", f"setsid sleep {mark} & sleep {mark}"]))
    wait_until(lambda: len(living(mark)) >= 5, "not all came: monitor, init, shell and two sleeps")
    launcher.child.send_signal(how)
    launcher.child.wait(60)
    wait_until(lambda: not living(mark), "a command outlived the launcher")
    if how == signal.SIGKILL and launcher.cgroup is not None:
        assert cgroup.remove(launcher.cgroup, wait_s=10)


@pytest.mark.needs("cgroup2")
def test_a_launcher_ends_what_one_before_it_left(tmp_path: Path) -> None:
    root = own_cgroup(tmp_path)
    assert root is not None
    os.makedirs(f"{root}/s-bob/p-1")
    with subprocess.Popen(["sleep", fresh_mark()]) as left:
        Path(f"{root}/s-bob/p-1/cgroup.procs").write_text(str(left.pid))
        with open_launcher(tmp_path):
            assert left.wait(60) == -signal.SIGKILL
            assert not os.path.exists(f"{root}/s-bob")
    assert not os.path.exists(root)


def test_a_launcher_nobody_comes_back_to_ends(tmp_path: Path) -> None:
    with open_launcher(tmp_path, linger_s=0.2) as started:
        started.ready().close()
        assert started.child.wait(60) == 0


def test_only_root_may_be_its_supervisor(launcher: Started) -> None:
    assert os.stat(launcher.path).st_mode & 0o077 == 0
