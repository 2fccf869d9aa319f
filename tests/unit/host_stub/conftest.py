"""Bundles whose keeper runs a process instead of a hypervisor; whatever is started is ended with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host_stub import keeper_start, session_disk
from host_stub.bundle import Bundle, open_bundle
from host_stub.bundle_files import no_progress
from host_stub.keeper_start import start_keeper
from tests.unit.host_stub.image_lab import make_bundle
from tests.unit.host_stub.keeper_lab import lab_command


@pytest.fixture(scope="session")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Made once, with all the fsync(2) that takes; to be copied, not used."""
    return make_bundle(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(whole_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle of one's own, its image not beside it."""
    path = tmp_path / "vm"
    shutil.copytree(whole_bundle.path, path, ignore=shutil.ignore_patterns("sessions.img"))
    path.chmod(0o700)
    session_disk.create(path / "sessions.img", 64 << 20)
    return open_bundle(path)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Bundle], int]]:
    """Starts a keeper, as `up` does; gives the machine's pid."""
    monkeypatch.setattr(keeper_start, "keeper_command", lab_command)
    begun: list[Bundle] = []

    def starting(bundle: Bundle, progress: Any = no_progress) -> int:
        begun.append(bundle)
        return start_keeper(bundle, progress)

    yield starting
    for each in begun:
        end_keeper(each)


def keeper_pid(bundle: Bundle) -> int:
    return int((bundle.run / "lock").read_text())


def end_keeper(bundle: Bundle) -> None:
    """Kill and reap the keeper, a child of this process, where it still lives."""
    with contextlib.suppress(OSError, ValueError):
        pid = keeper_pid(bundle)
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
