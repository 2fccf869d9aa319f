"""`coworkctl run` in a terminal: deletes are asked about where the person sits, whatever else the terminal is used for."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.cli.control_asking import GUARD_S
from tests.root.approval_lab import asking_daemon, contents, open_approvals, session_with, tree
from tests.root.conftest import Daemon
from tests.root.live import client_of

pytestmark = [pytest.mark.needs("bubblewrap"), pytest.mark.needs("fuse")]
REPO = Path(__file__).resolve().parents[2]
QUESTION = b"[n] no"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with asking_daemon(tmp_path_factory.mktemp("asking")) as daemon:
        yield daemon


class Terminal:
    """A program on a pseudo-terminal, and what it has shown."""

    def __init__(self, child: subprocess.Popen[bytes], master: int) -> None:
        self.child = child
        self._master = master
        self.shown = b""

    def wait_for(self, text: bytes, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._master], [], [], 0.1)[0]:
                self._read()

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        """Its status, once all that it has shown was read."""
        while self.child.poll() is None:
            if select.select([self._master], [], [], 0.1)[0]:
                self._read()
        while select.select([self._master], [], [], 0)[0] and self._read():
            pass
        return self.child.returncode

    def _read(self) -> bytes:
        """What is there; nothing once the last user of the other end has gone (EIO)."""
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._master, 65536)
        self.shown += data
        return data


@contextlib.contextmanager
def terminal(daemon: Daemon, *words: str) -> Iterator[Terminal]:
    """`coworkctl` with these words on a terminal of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, *words]
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=REPO, start_new_session=True)
    os.close(slave)
    try:
        yield Terminal(child, master)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(master)


@pytest.mark.parametrize("options", [(), ("--stdin",), ("--tty",)])
@pytest.mark.parametrize(("key", "left"), [(b"y\n", ["b"]), (b"n\n", ["a", "b"])])
def test_a_person_is_asked_in_the_terminal_of_the_command(
    asking: Daemon, tmp_path: Path, options: tuple[str, ...], key: bytes, left: list[str]
) -> None:
    source = tree(tmp_path / "source", "a", "b")
    script = "cd mnt/f && rm a; echo gone: $?"
    with client_of(asking) as client, session_with(client, "asked", (source, "rw")) as session:
        with terminal(
            asking, "run", "--session", session, "--profile", "asking", *options, "--", "sh", "-c", script
        ) as seen:
            seen.wait_for(QUESTION)
            assert b"wants to delete 1 file in folder f" in seen.shown
            time.sleep(GUARD_S)
            seen.type(key)
            assert seen.end() == 0
        assert contents(source) == left
        assert (b"gone: 0" in seen.shown) is (left == ["b"])
        assert open_approvals(client, session) == ()


def test_keys_for_a_question_never_reach_the_command_and_others_do(asking: Daemon, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", "a")
    script = "cd mnt/f; rm a; echo ready; read line; echo said: $line."
    with client_of(asking) as client, session_with(client, "asked", (source, "rw")) as session:
        with terminal(
            asking, "run", "--session", session, "--profile", "asking", "--tty", "--", "sh", "-c", script
        ) as seen:
            seen.wait_for(QUESTION)
            time.sleep(GUARD_S)
            seen.type(b"y")
            seen.wait_for(b"ready")
            seen.type(b"mine\n")
            assert seen.end() == 0
        assert b"said: mine." in seen.shown


def test_who_does_not_want_to_be_asked_is_not(asking: Daemon, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", "a")
    with client_of(asking) as client, session_with(client, "asked", (source, "rw")) as session:
        words = ("run", "--no-ask", "--session", session, "--profile", "asking", "--", "rm", "mnt/f/a")
        with terminal(asking, *words) as seen:
            deadline = time.monotonic() + 20
            while not (asked := open_approvals(client, session)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            client.approval_answer(approval=asked[0].approval, answer="once")
            assert seen.end() == 0
        assert QUESTION not in seen.shown


def test_another_terminal_asks_about_all_sessions(asking: Daemon, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", "a\n\x1b[2J")
    with client_of(asking) as client, session_with(client, "asked", (source, "rw")) as session:
        with terminal(asking, "approve", "--watch") as seen:
            seen.wait_for(b"waiting for deletes")
            with client.start(session, ["sh", "-c", "rm mnt/f/*"]) as process:
                seen.wait_for(QUESTION)
                assert b"a\\n\\x1b[2J" in seen.shown
                assert b"\x1b" not in seen.shown
                time.sleep(GUARD_S)
                seen.type(b"s\n")
                seen.wait_for(b"allowed, for this folder from now on")
                assert process.wait(timeout_s=60).exit.code == 0
        assert contents(source) == []
