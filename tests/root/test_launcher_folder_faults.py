"""Folders of the launcher that do not go well: ends at any moment, bad sources, sources that are swapped, shares that hang and fail."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from coworkd.model import launch
from coworkd.model.policy import FolderMode
from tests.root.folder_room import (
    PRIVATE,
    Share,
    enter,
    launcher,
    launcher_pid,
    mounted,
    name_of,
    refused,
    run,
    servers,
    shell_in,
    source,
    status_of,
    talk,
    unmounted,
)
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
from tests.root.live import children_of, links_of, took_at_most, wait_until

pytestmark = pytest.mark.needs("root", "userns", "netns", "bubblewrap", "fuse", "overlay")
__all__ = ("launcher", "source", "talk")  # fixtures


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
        with took_at_most(15):
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
    launcher.child.wait(60)
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
            started.child.wait(60)
            assert not users_of(tmp_path)


def users_of(directory: Path) -> list[int]:
    """The processes, but this one, that have something below it open."""
    others = (int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid())
    return [pid for pid in others if any(link.startswith(str(directory)) for link in links_of(pid))]


def test_a_launcher_that_quits_leaves_no_file_system(launcher: Started, talk: Talk, source: Path) -> None:
    mounted(talk, folder_request(source, "rw"))
    (pid,) = servers(launcher)
    assert isinstance(talk.ask(launch.Quit(id=0)), launch.Done)
    assert launcher.child.wait(60) == 0
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
        with took_at_most(5):
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


@pytest.mark.parametrize("mode", ["ro", "rw", "rwd"])
def test_no_name_leads_to_our_own_or_to_the_kernels(
    launcher: Started, talk: Talk, tmp_path: Path, mode: FolderMode
) -> None:
    own, alias, kernels = (tmp_path / name for name in ("own", "alias", "chroot-proc"))
    for path in (own, alias, kernels):
        path.mkdir()
    for words in (("--bind", str(tmp_path), str(alias)), ("-t", "proc", "proc", str(kernels))):
        subprocess.run(enter(launcher, "mount", *words), check=True)
    walls = (bytes(own), b"/nowhere")
    for place, told in (
        (alias, "lie in each other"),
        (alias / "own", "lie in each other"),
        (kernels / "sys", "kernel's own"),
    ):
        answer = refused(talk, folder_request(place, mode, apart_from=walls))
        assert (answer.stage, answer.errno) == ("source", errno.EPERM)
        assert told in answer.message
    mounted(talk, folder_request(alias / "home", mode, apart_from=walls))


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
        assert launcher.child.wait(60) == 0
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
            folder.settimeout(60)
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
