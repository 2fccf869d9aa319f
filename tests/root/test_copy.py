"""`coworkctl cp` against sessions that mean harm, and killed on its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import Client
from tests.root.conftest import Daemon
from tests.root.live import client_of, links_of, program, session_of, wait_until

REPO = Path(__file__).resolve().parents[2]
SESSION = "copies"

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Client]:
    with client_of(daemon) as made, session_of(made, SESSION):
        yield made


def sh(client: Client, script: str) -> str:
    done = client.run(SESSION, ["sh", "-ec", script])
    assert done.exit.code == 0, done.stderr
    return done.stdout.decode(errors="surrogateescape").strip()


def test_a_cp_of_a_hostile_tree_writes_nothing_outside(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    """The guest's own archive is whole; what the session planted comes as what it is, and a second copy does not follow it."""
    (tmp_path / "precious").write_bytes(b"kept")
    sh(client, f"rm -rf evil; mkdir evil; ln -s {tmp_path} evil/d; ln -s ../precious evil/f")
    assert daemon.ctl("cp", "-r", f"{SESSION}:evil/.", str(tmp_path / "out")).returncode == 0
    sh(client, "rm evil/d evil/f; mkdir evil/d; echo evil >evil/d/precious; echo evil >evil/f")
    second = daemon.ctl("cp", "-r", f"{SESSION}:evil/.", str(tmp_path / "out"))
    assert second.returncode == 1
    assert b"symbolic link" in second.stderr
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_a_killed_cp_leaves_no_rest_on_either_side(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    sh(client, "rm -rf k; mkdir k")
    command = [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, "cp", "-", f"{SESSION}:k/a"]
    with program(command, stdin=subprocess.PIPE, cwd=REPO) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(range(256)) * 4096)
        child.stdin.flush()
        child.kill()
    wait_until(lambda: sh(client, "ls -A k") == "", "nothing of it is left")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_cp_of_one_file_leaves_no_rest_here(
    daemon: Daemon, client: Client, tmp_path: Path, end: signal.Signals
) -> None:
    sh(client, "truncate -s 1T big")  # more than there is time for
    command = [
        sys.executable,
        "-m",
        "coworkd.cli.control",
        "--to",
        daemon.uri,
        "cp",
        f"{SESSION}:big",
        str(tmp_path / "a"),
    ]
    with program(command, cwd=REPO) as child:
        wait_until(lambda: any(f"{tmp_path}/" in link for link in links_of(child.pid)), "it writes")
        child.send_signal(end)
        child.wait(60)
    sh(client, "rm big")
    assert os.listdir(tmp_path) == []
