"""What broke coworkd once from the outside, each as it was found: links, descriptors, many commands."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coworkd.client.sync import connect
from coworkd.model.errors import InvalidState
from coworkd.model.session import FolderGrant
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of, session_of, took_at_most

SOFT_LIMIT = 96
ENOUGH_COMMANDS = 60

pytestmark = pytest.mark.needs("bubblewrap")


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Daemon]:
    """A coworkd that was started under a small soft limit of descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, before[1]))
    try:
        with running_daemon(tmp_path / "coworkd") as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_kept_commands_do_not_use_up_the_descriptors_of_links(crowded: Daemon) -> None:
    with client_of(crowded) as client, session_of(client, "crowd") as session:
        started = [client.start(session, ["true"]) for _ in range(ENOUGH_COMMANDS)]
        for process in started:
            process.wait()
        with connect(crowded.uri, timeout_s=30) as another:
            assert len(another.process_list().processes) == ENOUGH_COMMANDS


@pytest.mark.parametrize("kind", ["missing", "fifo", "link"])
def test_a_folder_that_cannot_be_is_told_without_an_incident(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    source = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(source)
    elif kind == "link":
        source.symlink_to(tmp_path)
    with client_of(daemon) as client, pytest.raises(InvalidState) as caught:
        client.session_ensure(name="nofolder", folders=[FolderGrant(name="f", source=str(source), mode="ro")])
    assert caught.value.details["path"] == str(source)
    assert "incident" not in caught.value.details


def test_closed_stdin_is_an_empty_one(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, "run", "-i", "--", "cat"]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(closed, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_closed_stdout_is_told_and_gets_no_byte_of_the_link(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "coworkd.cli.control", "--to", daemon.uri, "run", "--", "echo", "hi"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode == 125
    assert b"cannot be written" in done.stderr


def test_a_frozen_coworkd_does_not_hold_coworkctl_for_ever(fresh_daemon: Daemon) -> None:
    command = [
        sys.executable,
        "-m",
        "coworkd.cli.control",
        "--to",
        fresh_daemon.uri,
        "run",
        "--",
        "sh",
        "-c",
        "echo up; sleep 60",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as control:
        assert control.stdout is not None
        assert control.stdout.readline() == b"up\n"
        fresh_daemon.child.send_signal(signal.SIGSTOP)
        try:
            control.send_signal(signal.SIGTERM)
            with took_at_most(20):
                assert control.wait(60) in (125, 143)
        finally:
            fresh_daemon.child.send_signal(signal.SIGCONT)
            control.kill()


def test_a_folder_of_another_owner_is_mapped_without_a_word(fresh_daemon: Daemon, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    done = fresh_daemon.ctl("run", "--folder", f"{shared}:f:ro", "--", "true")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"wakeup" not in fresh_daemon.log.read_bytes()
