from __future__ import annotations

import argparse
import errno
import os
import socket
import threading
from pathlib import Path

import pytest
import trio

from coworkd import __version__
from coworkd.cli import daemon
from coworkd.cli.daemon import build_parser, compose_local_config, main, parse_disk
from coworkd.config import Config
from coworkd.model.errors import NotFound, Unavailable


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"coworkd {__version__}\n"


@pytest.mark.parametrize("words", [[], ["other"], ["local"], ["local", "--state", "x"], ["serve", "--state", "x"]])
def test_words_it_does_not_know_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_without_root_it_says_sudo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["serve"]) == 1
    assert "sudo" in capsys.readouterr().err


class Group(Exception):
    """An exception group as trio raises it."""

    def __init__(self, *members: Exception) -> None:
        super().__init__("group")
        self.exceptions = members


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotFound("there is no profile x"), ["coworkd: there is no profile x"]),
        (Group(Group(Unavailable("one")), NotFound("two")), ["coworkd: one", "coworkd: two"]),
        (OSError(errno.EACCES, "Permission denied", "/f"), ["coworkd: [Errno 13] Permission denied: '/f'"]),
    ],
)
def test_a_start_that_fails_ends_with_1_and_its_reasons(
    error: Exception, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: str | None) -> None:
        raise error

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(daemon, "load_config", fail)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err.splitlines() == said


def test_a_fault_of_ours_is_told_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: str | None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(daemon, "load_config", fail)
    assert main(["serve"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_local_keeps_everything_of_its_own_below_its_state(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    config = compose_local_config(state=str(tmp_path / "link" / "s"), socket="c.sock", log_level="debug")
    state = os.path.realpath(tmp_path / "s")
    assert (config.sessions_dir, config.state_dir) == (state, f"{state}/.coworkd")
    assert config.launcher_socket.startswith(config.state_dir)
    assert config.cache_dir.startswith(config.state_dir)
    assert config.endpoints == (f"unix://{os.getcwd()}/c.sock",)
    assert config.log.level == "debug"


def test_local_takes_an_admins_policies(tmp_path: Path) -> None:
    config = compose_local_config(state=str(tmp_path), socket="/s", policies="mine")
    assert config.admin_policies == os.path.abspath("mine")


def test_local_lingers_unless_it_is_to_be_kept() -> None:
    words = ["local", "--state", "a", "--socket", "b"]
    assert not build_parser().parse_args(words).keep
    assert build_parser().parse_args([*words, "--keep"]).keep


def test_connect_finds_its_launcher_off_the_event_loop(tmp_path: Path) -> None:
    path = str(tmp_path / "launcher.sock")
    found_by: list[int] = []

    def find() -> str:
        found_by.append(threading.get_ident())
        return path

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        async def connect() -> None:
            (await daemon._connect(find)).close()

        trio.run(connect)
    assert found_by != [threading.get_ident()]


def test_connect_that_fails_leaves_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        trio.run(daemon._connect, lambda: str(tmp_path / "nothing"))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("text", "file", "size"),
    [
        ("/d/disk", "/d/disk", 10 << 30),
        ("/d/disk:64M", "/d/disk", 64 << 20),
        ("/d/a:b/disk", "/d/a:b/disk", 10 << 30),
        ("/d/a:b:20G", "/d/a:b", 20 << 30),
    ],
)
def test_a_disk_is_a_file_and_perhaps_its_size(text: str, file: str, size: int) -> None:
    found = parse_disk(text)
    assert (found.kind, found.loop_file, found.loop_size) == ("loop", file, size)


@pytest.mark.parametrize("text", ["", ":64M", "/d:1M", "/d:large", "/d:-5"])
def test_a_disk_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_disk(text)


def test_with_a_disk_what_must_be_there_before_it_lies_beside_its_mount_point(tmp_path: Path) -> None:
    made = compose_local_config(state=str(tmp_path), socket="/s", disk=parse_disk("/d/disk:64M"))
    assert (made.sessions_dir, made.state_dir) == (f"{tmp_path}/sessions", f"{tmp_path}/sessions/.coworkd")
    assert made.launcher_socket == f"{tmp_path}/run/launcher.sock"
    assert made.cache_dir == f"{tmp_path}/cache"
    assert made.storage.kind == "loop"
    assert compose_local_config(state=str(tmp_path), socket="/s").storage.kind == "directory"


def test_a_state_directory_too_deep_for_sockets_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    deep = tmp_path / ("d" * 100)
    assert main(["local", "--state", str(deep), "--socket", str(tmp_path / "socket")]) == 1
    assert "choose a shorter state directory" in capsys.readouterr().err
    assert not deep.exists()


def test_a_host_is_dialled_where_the_kernels_command_line_says_so() -> None:
    config = Config(endpoints=("unix:///s",))
    assert daemon.add_dialled(config, "root=LABEL=x coworkd.dial=10 quiet") == config
    dialled = daemon.add_dialled(config, "root=LABEL=x coworkd.dial=1 quiet\n")
    assert dialled.endpoints == ("unix:///s", "vsock://2:5007")
    assert daemon.add_dialled(dialled, "coworkd.dial=1") == dialled
