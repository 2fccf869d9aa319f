"""Folders of the launcher, for real: every mode, while commands run; bad sources; sources that are swapped; shares that hang."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from coworkd.model import launch
from coworkd.model.folder import Changed, FromFolder, Rule, Ruled
from tests.root.launcher_talk import (
    UID,
    Started,
    Talk,
    folder_request,
    make_stage,
    open_launcher,
    session_request,
    spawn_request,
)
from tests.root.live import children_of, took_at_most, wait_until

pytestmark = pytest.mark.needs("root", "userns", "netns", "bubblewrap")
ROOT = Path(__file__).resolve().parent.parent.parent
PRIVATE = ("unshare", "--mount", "--propagation", "private", "--")
OWNER = 4321
"""Nobody of this machine's: who owns the sources."""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Started]:
    """In a mount namespace of its own, for sources that are mounts."""
    tmp_path.chmod(0o755)
    with open_launcher(tmp_path, below=PRIVATE) as started:
        yield started
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def talk(launcher: Started) -> Talk:
    talk = launcher.ready()
    assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
    return talk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir(mode=0o700)
    (made / "kept").write_text("the user's")
    for path in (made, made / "kept"):
        os.chown(path, OWNER, OWNER)
    return made


def mounted(talk: Talk, request: launch.MountFolder) -> launch.FolderMounted:
    answer = talk.ask(request)
    assert isinstance(answer, launch.FolderMounted), answer
    return answer


def refused(talk: Talk, request: launch.Request) -> launch.Refused:
    answer = talk.ask(request)
    assert isinstance(answer, launch.Refused), answer
    return answer


def unmounted(talk: Talk, name: str = "work", *, lazy: bool = True) -> launch.FolderUnmounted:
    answer = talk.ask(launch.UnmountFolder(id=0, session="bob", name=name, lazy=lazy))
    assert isinstance(answer, launch.FolderUnmounted), answer
    return answer


def run(talk: Talk, line: str) -> str:
    """What a shell in the session prints for `line`."""
    exited, output = talk.run(spawn_request(["/bin/sh", "-c", f"exec 2>&1; cd /sessions/bob/mnt; {line}"]))
    assert isinstance(exited, launch.Exited), exited
    assert isinstance(talk.ask(launch.Forget(id=0, process="p1")), launch.Done)
    return output.decode()


class Shell:
    """A command of the session's that lives on: a shell, asked line by line."""

    def __init__(self, talk: Talk) -> None:
        spawned = talk.start(spawn_request(["/bin/sh"], process="shell", stdin=True))
        fds = dict(zip(spawned.fds, talk.fds[-len(spawned.fds) :], strict=True))
        del talk.fds[-len(spawned.fds) :]
        self._stdin: IO[bytes] = os.fdopen(fds.pop("stdin"), "wb", buffering=0)
        self._stdout: IO[bytes] = os.fdopen(fds.pop("stdout"), "rb")
        for fd in fds.values():
            os.close(fd)
        self._talk = talk
        self.ask("cd /sessions/bob/mnt; exec 2>&1")

    def ask(self, line: str) -> str:
        self._stdin.write(f"{line}\necho; echo END\n".encode())
        said = []
        while (read := self._stdout.readline()) not in (b"END\n", b""):
            said.append(read.decode())
        return "".join(said).strip()

    def end(self) -> None:
        self._talk.ask(launch.Kill(id=0, process="shell"))
        self._talk.wait(launch.Exited)
        self._talk.ask(launch.Forget(id=0, process="shell"))
        self._stdin.close()
        self._stdout.close()


@contextlib.contextmanager
def shell_in(talk: Talk) -> Iterator[Shell]:
    shell = Shell(talk)
    try:
        yield shell
    finally:
        shell.end()


def launcher_pid(started: Started) -> int:
    (pid,) = children_of(started.child.pid)
    return pid


def servers(started: Started) -> list[int]:
    """What serves folders."""
    return [pid for pid in children_of(launcher_pid(started)) if name_of(pid) == "coworkd-fs"]


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def status_of(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise AssertionError(f"no {key}")


def enter(started: Started, *argv: str) -> list[str]:
    """`argv` in the launcher's mount namespace."""
    return ["nsenter", "--target", str(started.child.pid), "--mount", f"--wd={ROOT}", "--", *argv]


class Share:
    """A share on `directory`: an empty directory until it is told to hang, or one that answers with an errno."""

    def __init__(self, started: Started, directory: Path, number: int = 0) -> None:
        directory.mkdir(exist_ok=True)
        words = enter(started, sys.executable, "-m", "tests.root.share_server", str(directory), str(number))
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def hang(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"hang\n")

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._server.wait(10)


# -- the modes ----------------------------------------------------------------------------------------------------


def test_rwd_shows_what_the_owner_has_as_the_sessions_and_gives_him_what_it_makes(talk: Talk, source: Path) -> None:
    assert mounted(talk, folder_request(source)).mounted_as == "idmapped"
    assert run(talk, "stat -c %u work work/kept; echo new > work/new; rm work/kept; ls work") == f"{UID}\n{UID}\nnew\n"
    assert os.stat(source / "new").st_uid == OWNER
    assert not (source / "kept").exists()


def test_ro_can_be_read_and_nothing_else(talk: Talk, source: Path) -> None:
    assert mounted(talk, folder_request(source, "ro")).mounted_as == "idmapped"
    said = run(talk, "cat work/kept; echo; echo x > work/new; echo x > work/kept; rm work/kept")
    assert said.startswith("the user's\n")
    assert said.count("Read-only file system") == 3


def test_a_folder_of_the_sessions_own_uid_is_a_plain_bind(talk: Talk, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, UID, UID)
    assert mounted(talk, folder_request(own)) == launch.FolderMounted(id=talk.last_id, mounted_as="bind")


def test_rw_lets_the_session_delete_what_it_made_and_not_what_is_the_users(talk: Talk, source: Path) -> None:
    talk.drop_fds()
    assert mounted(talk, folder_request(source, "rw")).mounted_as == "guarded"
    assert len(talk.fds) == 1
    assert "Operation not permitted" in run(talk, "rm -f work/kept")
    assert run(talk, "echo new > work/new; rm work/new; echo more >> work/kept; stat -c %u work/kept") == f"{UID}\n"
    assert (source / "kept").read_text() == "the user'smore\n"
    assert os.listdir(source) == ["kept"]


def test_a_guarded_folders_server_has_the_owners_rights_and_no_other(
    launcher: Started, talk: Talk, source: Path
) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    assert status_of(pid, "Uid").split() == [str(OWNER)] * 4
    assert status_of(pid, "Gid").split() == [str(OWNER)] * 4
    assert status_of(pid, "Groups") == ""
    assert {status_of(pid, f"Cap{each}") for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status_of(pid, "NoNewPrivs") == "1"


def test_where_root_is_the_owner_the_server_keeps_roots_rights_over_files(
    launcher: Started, talk: Talk, tmp_path: Path
) -> None:
    (tmp_path / "roots").mkdir(mode=0o700)
    mounted(talk, folder_request(tmp_path / "roots", "rw"))
    (pid,) = servers(launcher)
    assert status_of(pid, "Uid").split() == ["0"] * 4
    assert (int(status_of(pid, "CapPrm"), 16), int(status_of(pid, "CapBnd"), 16)) == (0b1111, 0)
    assert run(talk, "echo x > work/new; cat work/new") == "x\n"
    assert os.stat(tmp_path / "roots" / "new").st_uid == 0


def test_staged_holds_back_what_the_session_does(talk: Talk, source: Path, tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "stage")
    assert mounted(talk, folder_request(source, "staged", stage=bytes(stage))).mounted_as == "overlay"
    assert run(talk, "echo more >> work/kept; echo new > work/new; cat work/kept work/new") == "the user'smore\nnew\n"
    assert {path.name: path.read_text() for path in source.iterdir()} == {"kept": "the user's"}
    assert {path.name for path in (stage / "upper").iterdir()} == {"kept", "new"}
    assert {path.stat().st_uid for path in (stage / "upper").iterdir()} == {UID}


def test_a_stage_survives_being_mounted_again(talk: Talk, source: Path, tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "stage")
    request = folder_request(source, "staged", stage=bytes(stage))
    mounted(talk, request)
    run(talk, "echo new > work/new; rm work/kept")
    assert not unmounted(talk).busy
    mounted(talk, request)
    assert run(talk, "ls work") == "new\n"


@pytest.mark.parametrize("mode", ["ro", "rw", "rwd"])
def test_a_single_file_is_mounted_as_a_file(talk: Talk, source: Path, mode: Any) -> None:
    assert mounted(talk, folder_request(source / "kept", mode)).mounted_as == "idmapped"
    said = run(talk, "cat work; rm -f work; echo more >> work; stat -c ' %u %F' work")
    assert said.startswith("the user's")
    assert "Device or resource busy" in said or "Permission denied" in said
    assert f" {UID} regular file" in said
    assert (source / "kept").read_text() == ("the user's" if mode == "ro" else "the user'smore\n")


def test_a_single_file_cannot_be_staged(talk: Talk, source: Path, tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "stage")
    assert refused(talk, folder_request(source / "kept", "staged", stage=bytes(stage))).errno == errno.ENOTDIR


# -- where the kernel cannot map owners ---------------------------------------------------------------------------


@pytest.fixture
def unmappable(launcher: Started, source: Path, tmp_path: Path) -> Path:
    """The source by way of an overlay, as a share's file system would show it: no idmapped mounts."""
    for name in ("upper", "work", "share"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={source},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    os.chown(tmp_path / "upper", OWNER, OWNER)
    (tmp_path / "upper").chmod(0o700)
    words = enter(launcher, "mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "share"))
    subprocess.run(words, check=True)
    return tmp_path / "share"


def test_rwd_there_is_guarded_and_deletes_all_the_same(talk: Talk, unmappable: Path, tmp_path: Path) -> None:
    assert mounted(talk, folder_request(unmappable)).mounted_as == "guarded"
    assert run(talk, "rm work/kept; echo new > work/new; ls work") == "new\n"
    assert os.stat(tmp_path / "upper" / "new").st_uid == OWNER


def test_ro_there_is_guarded_where_others_may_not_read(talk: Talk, unmappable: Path) -> None:
    assert mounted(talk, folder_request(unmappable, "ro")).mounted_as == "guarded"
    said = run(talk, "cat work/kept; echo; echo x > work/new; rm -f work/kept")
    assert said.startswith("the user's\n")
    assert said.count("Read-only file system") == 2


def test_ro_there_is_plain_where_everybody_reads(
    launcher: Started, talk: Talk, unmappable: Path, tmp_path: Path
) -> None:
    subprocess.run(enter(launcher, "chmod", "755", str(unmappable)), check=True)
    answer = mounted(talk, folder_request(unmappable, "ro"))
    assert (answer.mounted_as, answer.degraded) == (
        "bind",
        ("files keep their owner: that file system cannot map it",),
    )
    assert run(talk, "cat work/kept; stat -c ' %u' work/kept") == "the user's 65534\n"


def test_staged_there_lies_over_a_guarded_folder(
    launcher: Started, talk: Talk, unmappable: Path, tmp_path: Path
) -> None:
    stage = make_stage(tmp_path / "stage")
    assert mounted(talk, folder_request(unmappable, "staged", stage=bytes(stage))).mounted_as == "overlay"
    assert run(talk, "echo more >> work/kept; rm work/kept; echo new > work/new; ls work") == "new\n"
    assert run(talk, "stat -c %u work/new") == f"{UID}\n"
    assert not unmounted(talk).busy
    wait_until(lambda: not servers(launcher), "the file system below the stage goes with it")


# -- while commands run -------------------------------------------------------------------------------------------


def test_folders_come_and_go_while_a_command_runs(talk: Talk, source: Path) -> None:
    with shell_in(talk) as shell:
        assert shell.ask("ls") == ""
        for mode in ("rwd", "rw", "ro"):
            mounted(talk, folder_request(source, mode))
            assert shell.ask("cat work/kept") == "the user's"
            assert not unmounted(talk).busy
            assert shell.ask("ls") == ""


def test_rw_becomes_rwd_and_rw_again_while_a_command_runs(talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    with shell_in(talk) as shell, socket.socket(fileno=talk.fds.pop(-1)) as folder:
        folder.settimeout(10)
        assert "Operation not permitted" in shell.ask("rm -f work/kept")
        assert rule(folder, "allow")
        assert shell.ask("rm work/kept; echo more > work/more; ls work") == "more"
        (source / "back").touch()
        assert rule(folder, "deny")
        assert "Operation not permitted" in shell.ask("rm -f work/back")
        assert mounted(talk, folder_request(source, "rwd", deletes="allow")).mounted_as == "guarded"


def rule(folder: socket.socket, deletes: Any) -> bool:
    """Whether the folder's file system has taken that rule."""
    folder.send(msgspec.msgpack.encode(Rule(id=1, deletes=deletes, ask_timeout_s=5.0)))
    while not isinstance(word := msgspec.msgpack.decode(folder.recv(1 << 16), type=FromFolder), Ruled):
        assert isinstance(word, Changed)
    return True


def test_a_busy_folder_goes_from_sight_and_says_who_has_it(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    with shell_in(talk) as shell:
        shell.ask("exec 7< work/kept")
        answer = unmounted(talk)
        assert answer.busy
        (words,) = answer.leftovers
        assert words.startswith("1 process uses it until it ends: ")
        assert words.endswith(" (sh)")
        assert shell.ask("ls") == ""
        assert shell.ask("cat <&7") == "the user's"
        mounted(talk, folder_request(source, "ro"))
        assert shell.ask("ls work") == "kept"
        assert len(servers(launcher)) == 1
    wait_until(lambda: not servers(launcher), "its file system ends with its last user")


def test_a_busy_folder_that_must_not_go_lazily_stays(talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    with shell_in(talk) as shell:
        shell.ask("cd work")
        assert unmounted(talk, lazy=False).busy
        assert shell.ask("ls; ls ..") == "kept\nwork"
        shell.ask("cd ..")
        assert not unmounted(talk, lazy=False).busy
        assert shell.ask("ls") == ""


def test_what_is_mounted_is_answered_as_it_stands(talk: Talk, source: Path, tmp_path: Path) -> None:
    talk.drop_fds()
    request = folder_request(source, "rw", journal=bytes(tmp_path / "journal"))
    first, second = mounted(talk, request), mounted(talk, request)
    assert first.mounted_as == second.mounted_as == "guarded"
    assert os.fstat(talk.fds[0]).st_ino == os.fstat(talk.fds[1]).st_ino
    assert refused(talk, folder_request(source, "ro")).errno == errno.EEXIST
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o600


def test_the_next_supervisor_gets_the_folders_by_asking(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    talk.close()
    again = launcher.ready()
    assert isinstance(again.ask(session_request(launcher.directory / "home")), launch.Opened)
    assert mounted(again, folder_request(source, "rw")).mounted_as == "guarded"
    assert servers(launcher) == [pid]


def test_no_other_session_sees_a_folder(launcher: Started, talk: Talk, source: Path) -> None:
    other = session_request(launcher.directory / "eve", name="eve", uid=UID + 1)
    assert isinstance(talk.ask(other), launch.Opened)
    mounted(talk, folder_request(source))
    request = spawn_request(["/bin/ls", "/sessions/eve/mnt", "/sessions"], process="e", name="eve", uid=UID + 1)
    exited, output = talk.run(request)
    assert isinstance(exited, launch.Exited)
    assert output == b"/sessions:\neve\n\n/sessions/eve/mnt:\n"


def test_a_file_system_that_dies_is_mounted_anew_when_it_is_asked_for(
    launcher: Started, talk: Talk, source: Path
) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    with shell_in(talk) as shell:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not servers(launcher), "it is reaped")
        assert "Transport endpoint is not connected" in shell.ask("cat work/kept")
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it is gone")
        assert mounted(talk, folder_request(source, "rw")).degraded == (
            "its file system had ended; it was mounted anew",
        )
        assert shell.ask("cat work/kept") == "the user's"
        assert mounted(talk, folder_request(source, "rw")).degraded == ()


def test_a_dead_file_system_can_be_taken_away(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    os.kill(servers(launcher)[0], signal.SIGKILL)
    wait_until(lambda: not servers(launcher), "it is reaped")
    unmounted(talk)
    assert run(talk, "ls") == ""


# -- ends ---------------------------------------------------------------------------------------------------------


def test_a_session_that_closes_takes_its_folders_with_it(
    launcher: Started, talk: Talk, source: Path, tmp_path: Path
) -> None:
    mounted(talk, folder_request(source, "rw"))
    mounted(talk, folder_request(source, "staged", name="s", stage=bytes(make_stage(tmp_path / "stage"))))
    assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
    wait_until(lambda: not servers(launcher), "no file system is left")
    assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
    assert run(talk, "ls") == ""
    mounted(talk, folder_request(source, "staged", name="s", stage=bytes(tmp_path / "stage")))


def test_a_session_that_closes_ends_what_is_being_mounted(launcher: Started, talk: Talk, tmp_path: Path) -> None:
    with Share(launcher, tmp_path / "share") as share:
        share.hang()
        number = talk.tell(folder_request(tmp_path / "share", "rw", deadline_s=30.0))
        with took_at_most(5):
            assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
        assert talk.heard_of(number).message == "the session was closed meanwhile"
        assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
        assert run(talk, "ls") == ""


def test_mounts_and_closes_at_any_moment_leave_nothing(launcher: Started, talk: Talk, source: Path) -> None:
    for _ in range(10):
        numbers = [talk.tell(folder_request(source, mode, name=mode)) for mode in ("ro", "rw", "rwd")]
        talk.tell(launch.UnmountFolder(id=0, session="bob", name="ro"))
        assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)
        for number in numbers:
            assert isinstance(talk.heard_of(number), launch.FolderMounted | launch.Refused)
        assert isinstance(talk.ask(session_request(launcher.directory / "home")), launch.Opened)
        talk.drop_fds()
        assert run(talk, "ls") == ""
    wait_until(lambda: not servers(launcher), "no file system is left")


def test_a_launcher_that_is_killed_leaves_no_file_system(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    os.kill(launcher_pid(launcher), signal.SIGKILL)
    launcher.child.wait(10)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_launcher_that_is_killed_at_any_moment_leaves_nothing(tmp_path: Path, source: Path) -> None:
    tmp_path.chmod(0o755)
    chance = random.Random(4)
    for turn in range(6):
        (tmp_path / str(turn)).mkdir()
        with open_launcher(tmp_path / str(turn), below=PRIVATE) as started:
            talk = started.ready()
            assert isinstance(talk.ask(session_request(tmp_path / str(turn) / "home")), launch.Opened)
            stage = bytes(make_stage(tmp_path / str(turn) / "stage"))
            for mode in ("rw", "rwd", "staged", "ro"):
                talk.tell(folder_request(source, mode, name=mode, stage=stage if mode == "staged" else b""))
            time.sleep(chance.uniform(0, 0.05))
            os.kill(launcher_pid(started), signal.SIGKILL)
            started.child.wait(10)
            assert not users_of(tmp_path)


def users_of(directory: Path) -> list[int]:
    """The processes, but this one, that have something below it open."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            if pid != os.getpid() and any(link.startswith(str(directory)) for link in links):
                found.append(pid)
    return found


def test_a_launcher_that_quits_leaves_no_file_system(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    assert isinstance(talk.ask(launch.Quit(id=0)), launch.Done)
    assert launcher.child.wait(10) == 0
    assert not os.path.exists(f"/proc/{pid}")


# -- bad sources --------------------------------------------------------------------------------------------------


def test_only_directories_and_plain_files_are_folders(talk: Talk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("/etc")
    for name, number, what in (
        ("fifo", errno.EINVAL, "a fifo"),
        ("device", errno.EINVAL, "a device"),
        ("socket", errno.EINVAL, "a socket"),
        ("link", errno.ELOOP, "a symbolic link"),
        ("missing", errno.ENOENT, "No such file or directory"),
        ("link/passwd", errno.ELOOP, "a symbolic link"),
    ):
        with took_at_most(2):
            answer = refused(talk, folder_request(tmp_path / name))
        assert answer.errno == number
        assert what in answer.message
    assert run(talk, "ls") == ""


@pytest.mark.parametrize("path", [b"a/../b", b"../etc", b"/etc", b"a//b", b"./a", b"a\0b", b""])
def test_a_source_that_is_no_plain_relative_path_is_refused(talk: Talk, path: bytes) -> None:
    request = launch.MountFolder(id=0, session="bob", name="work", root=b"/", source=path, mode="ro")
    assert refused(talk, request).errno == errno.EINVAL


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 65, "a\nb", "a\0b"])
def test_a_name_that_is_no_component_is_refused(talk: Talk, source: Path, name: str) -> None:
    assert refused(talk, folder_request(source, name=name)).errno == errno.EINVAL


def test_a_session_that_is_not_open_has_no_folders(talk: Talk, source: Path) -> None:
    assert refused(talk, folder_request(source, session="eve")).stage == "session"
    assert isinstance(talk.ask(launch.UnmountFolder(id=0, session="eve", name="work")), launch.FolderUnmounted)


def test_a_missing_stage_is_told(talk: Talk, source: Path, tmp_path: Path) -> None:
    answer = refused(talk, folder_request(source, "staged", stage=bytes(tmp_path / "nowhere")))
    assert (answer.stage, answer.errno) == ("stage", errno.ENOENT)
    assert run(talk, "ls") == ""


def test_names_of_any_bytes_are_sources(talk: Talk, tmp_path: Path) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"x" * 255):
        made = os.path.join(bytes(tmp_path), name)
        os.mkdir(made)
        os.close(os.open(os.path.join(made, b"in"), os.O_CREAT, 0o644))
        request = launch.MountFolder(id=0, session="bob", name="work", root=bytes(tmp_path), source=name, mode="ro")
        mounted(talk, request)
        assert run(talk, "ls work") == "in\n"
        unmounted(talk)


def test_a_source_that_is_swapped_for_a_link_never_leads_out(talk: Talk, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root, root / "a", outside, outside / "b"):
        path.mkdir()
    (root / "a" / "b").mkdir()
    (root / "a" / "b" / "good").touch()
    (outside / "b" / "secret").touch()
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("a", "aside"), ("link", "a"), ("a", "link"), ("aside", "a")):
                os.rename(root / one, root / other)

    request = launch.MountFolder(id=0, session="bob", name="work", root=bytes(root), source=b"a/b", mode="ro")
    thread = threading.Thread(target=swap)
    thread.start()
    came = {"good": 0, "refused": 0}
    try:
        for _ in range(60):
            answer = talk.ask(request)
            if isinstance(answer, launch.Refused):
                assert answer.errno in (errno.ELOOP, errno.ENOENT, errno.EXDEV, errno.EAGAIN)
                came["refused"] += 1
                continue
            assert run(talk, "ls work") == "good\n"
            came["good"] += 1
            unmounted(talk)
    finally:
        done.set()
        thread.join()
    assert all(came.values()), came


def test_a_hostile_home_moves_no_folder(talk: Talk, source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    said = run(talk, f"cd ..; mv mnt away; rm -rf mnt; ln -sf {outside} mnt; ln -s {outside} mnt/work; mkdir mnt/x")
    assert "Device or resource busy" in said
    mounted(talk, folder_request(source))
    assert run(talk, "cat work/kept; ls ~/mnt") == "the user'swork\n"
    assert os.listdir(outside) == []


# -- shares that hang, and fail -----------------------------------------------------------------------------------


def test_a_share_that_hangs_costs_its_deadline_and_nobody_else(launcher: Started, talk: Talk, tmp_path: Path) -> None:
    with Share(launcher, tmp_path / "share") as share:
        share.hang()
        number = talk.tell(folder_request(tmp_path / "share", deadline_s=1.0))
        assert run(talk, "echo alive") == "alive\n"
        other = session_request(launcher.directory / "eve", name="eve", uid=UID + 1)
        assert isinstance(talk.ask(other), launch.Opened)
        answer = talk.heard_of(number)
        assert (answer.errno, answer.message) == (errno.ETIMEDOUT, "it did not answer in time")
        assert isinstance(talk.ask(launch.CloseSession(id=0, session="bob")), launch.Done)


def test_a_share_that_hangs_does_not_keep_the_launcher(launcher: Started, talk: Talk, tmp_path: Path) -> None:
    with Share(launcher, tmp_path / "share") as share:
        share.hang()
        assert refused(talk, folder_request(tmp_path / "share", deadline_s=0.2)).errno == errno.ETIMEDOUT
        (pid,) = [pid for pid in children_of(launcher_pid(launcher)) if name_of(pid) == "coworkd-folder"]
        assert isinstance(talk.ask(launch.Quit(id=0)), launch.Done)
        assert launcher.child.wait(20) == 0
        assert status_of(pid, "State").startswith("D")  # nobody can end it but the share
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it is gone with the share")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENODEV])
def test_a_share_that_fails_is_told_by_its_errno(launcher: Started, talk: Talk, tmp_path: Path, number: int) -> None:
    with Share(launcher, tmp_path / "share", number):
        answer = refused(talk, folder_request(tmp_path / "share"))
    assert answer.errno == number


@pytest.mark.parametrize("mode", ["ro", "rwd"])
def test_a_share_that_disappears_is_its_folders_alone(launcher: Started, talk: Talk, tmp_path: Path, mode: Any) -> None:
    with Share(launcher, tmp_path / "share"):
        mounted(talk, folder_request(tmp_path / "share", mode))
        assert run(talk, "ls work && echo good") == "good\n"
    said = run(talk, "ls work; echo alive")
    assert said.endswith("alive\n")
    assert "not connected" in said
    unmounted(talk)


def test_a_guarded_folder_whose_source_hangs_is_cut_off_from_who_waits(
    launcher: Started, talk: Talk, tmp_path: Path
) -> None:
    with Share(launcher, tmp_path / "share") as share, shell_in(talk) as shell:
        assert mounted(talk, folder_request(tmp_path / "share", "rw")).mounted_as == "guarded"
        (pid,) = servers(launcher)
        shell.ask("ls work")
        share.hang()
        shell.ask("(ls work; echo ended) >~/said 2>&1 &")
        wait_until(lambda: Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer", "its file system hangs")
        answer = unmounted(talk)
        assert answer.busy
        assert answer.leftovers[-1] == "its source does not answer: whoever waited for it was told ECONNABORTED"
        wait_until(lambda: "ended" in shell.ask("cat ~/said"), "who waited goes on")
        assert "Software caused connection abort" in shell.ask("cat ~/said")


def test_a_killed_command_ends_though_its_folders_source_hangs(launcher: Started, talk: Talk, tmp_path: Path) -> None:
    with Share(launcher, tmp_path / "share") as share:
        mounted(talk, folder_request(tmp_path / "share", "rw"))
        listening = talk.fds.pop()
        share.hang()
        spawned = talk.start(spawn_request(["/bin/ls", "/sessions/bob/mnt/work"], process="ls"))
        os.close(talk.take(spawned, "stdout"))
        (pid,) = servers(launcher)
        wait_until(lambda: Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer", "its file system hangs")
        with took_at_most(10):
            talk.ask(launch.Kill(id=0, process="ls"))
            assert talk.wait(launch.Exited).killed
        with socket.socket(fileno=listening) as folder:
            folder.settimeout(10)
            while folder.recv(1 << 16):
                pass
        assert refused(talk, folder_request(tmp_path / "share", "rw", deadline_s=0.5)).errno == errno.ETIMEDOUT


def test_a_kill_parts_no_folder_that_works(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    with shell_in(talk) as shell:
        spawned = talk.start(spawn_request(["/bin/sleep", "60"], process="sleeper"))
        os.close(talk.take(spawned, "stdout"))
        talk.ask(launch.Kill(id=0, process="sleeper"))
        talk.wait(launch.Exited)
        assert shell.ask("cat work/kept") == "the user's"
        assert mounted(talk, folder_request(source, "rw")).degraded == ()
