"""A MessagePack-RPC client that is not ours can drive coworkd (third_party_host.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.root.conftest import Daemon

HOST = Path(__file__).with_name("third_party_host.py")


@pytest.fixture(scope="module")
def seen(daemon: Daemon) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(HOST), str(daemon.socket_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_it_says_hello(seen: dict[str, Any]) -> None:
    assert seen["protocol"] == 1


def test_it_runs_a_command_and_gets_its_bytes_and_status(seen: dict[str, Any]) -> None:
    assert (seen["code"], seen["stdout"]) == (3, "ff")


def test_it_follows_output_to_the_exit(seen: dict[str, Any]) -> None:
    assert seen["followed"] == "hi\n"


def test_it_is_told_the_nearest_method(seen: dict[str, Any]) -> None:
    assert "process.run" in seen["refused"]
