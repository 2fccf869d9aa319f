"""Folders of the launcher, for real: every mode, with and without owners that the kernel can map, while commands run."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coworkd.model import launch
from coworkd.model.folder import Changed, FromFolder, Rule, Ruled
from coworkd.model.session import FolderGrant
from tests.root.folder_room import (
    OWNER,
    enter,
    launcher,
    mounted,
    refused,
    run,
    servers,
    shell_in,
    source,
    status_of,
    talk,
    unmounted,
)
from tests.root.launcher_talk import UID, Started, Talk, folder_request, make_stage, session_request, spawn_request
from tests.root.live import wait_until

pytestmark = pytest.mark.needs("root", "userns", "netns", "bubblewrap", "fuse", "overlay")
__all__ = ("launcher", "source", "talk")  # fixtures


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


@pytest.mark.parametrize("mode", ["ro", "rw", "rwd", "staged"])
def test_what_is_mounted_below_the_source_does_not_come_along(
    launcher: Started, talk: Talk, source: Path, tmp_path: Path, mode: Any
) -> None:
    below = source / "below"
    below.mkdir()
    os.chown(below, OWNER, OWNER)
    options = f"mode=0777,uid={OWNER}"
    subprocess.run(enter(launcher, "mount", "-t", "tmpfs", "-o", options, "disk", str(below)), check=True)
    subprocess.run(enter(launcher, "touch", str(below / "secret")), check=True)
    more: dict[str, Any] = {"stage": bytes(make_stage(tmp_path / "stage"))} if mode == "staged" else {}
    mounted(talk, folder_request(source, mode, **more))
    assert run(talk, "ls -a work/below; ls work") == ".\n..\nbelow\nkept\n"


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
        folder.settimeout(60)
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


def test_a_folder_that_is_in_use_still_and_its_next_one_remember_apart(
    talk: Talk, source: Path, tmp_path: Path
) -> None:
    request = folder_request(source, "rw", journal=bytes(tmp_path / "journal"))
    mounted(talk, request)
    with shell_in(talk) as shell:
        shell.ask("cd work; echo > before")
        unmounted(talk)
        mounted(talk, request)
        assert run(talk, "for n in 1 2 3 4; do echo > work/new$n; done; rm work/before") == ""
        assert shell.ask("for n in 1 2 3 4; do echo > old$n; done; rm old*") == ""
        unmounted(talk)
        mounted(talk, request)
        assert run(talk, "rm work/new*; ls work") == "kept\n"


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


@pytest.mark.needs("cgroup2")
def test_a_session_that_is_refused_while_it_closes_leaves_no_cgroup(
    launcher: Started, talk: Talk, source: Path, tmp_path: Path
) -> None:
    """What serves its folders may still be ending then, in its cgroup."""
    nothing = FolderGrant(name="src", source=str(tmp_path / "nothing"), mode="ro")
    for _ in range(20):
        assert isinstance(talk.ask(session_request(tmp_path / "home")), launch.Opened)
        mounted(talk, folder_request(source, "rw"))
        closing = talk.tell(launch.CloseSession(id=0, session="bob"))
        opening = talk.tell(session_request(tmp_path / "home", nothing))
        assert isinstance(talk.heard_of(closing), launch.Done)
        assert isinstance(talk.heard_of(opening), launch.Refused)
        wait_until(lambda: not list(Path(f"{launcher.cgroup}").glob("s-*")), "its cgroup goes")


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
