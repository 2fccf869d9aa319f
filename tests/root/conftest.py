"""A real coworkd on a directory of its own, for tests that need root, namespaces and bubblewrap."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_REPO = Path(__file__).resolve().parents[2]
_STOP_S = 60
_filters: dict[str, bytes] = {}
"""What the first coworkd of this run has compiled, by the names of its cache: it takes longer than all else of a start."""


class Daemon:
    """A running `coworkd local`. `state` is its directory, `log` what it has said."""

    def __init__(self, child: subprocess.Popen[bytes], directory: Path) -> None:
        self.child = child
        self.state = directory / "state"
        self.socket_path = directory / "coworkd.sock"
        self.log = directory / "coworkd.log"
        self.uri = f"unix://{self.socket_path}"

    def ctl(self, *words: str, timeout_s: float = 300, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`coworkctl --to` this daemon, output captured."""
        command = [sys.executable, "-m", "coworkd.cli.control", "--to", self.uri, *words]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False, cwd=_REPO)


@contextmanager
def running_daemon(directory: Path, *options: str, through: Sequence[str] = ()) -> Iterator[Daemon]:
    """Start coworkd on `directory`, and see to it that it ends by itself on TERM. `through` is an argv that becomes it."""
    directory.mkdir(parents=True, exist_ok=True)
    cache = directory / "state" / ".coworkd" / "cache"
    if _filters and not (directory / "state").exists():
        _bring_filters(cache)
    log = (directory / "coworkd.log").open("ab")
    command = [*through, sys.executable, "-m", "coworkd", "local", "--state", str(directory / "state")]
    command += ["--socket", str(directory / "coworkd.sock"), *options]
    with (
        log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=_REPO) as child,
    ):
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line.startswith(b"ready "), (directory / "coworkd.log").read_text()
            _keep_filters(cache)
            yield Daemon(child, directory)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                raise


def _bring_filters(cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, data in _filters.items():
        (cache / name).write_bytes(data)


def _keep_filters(cache: Path) -> None:
    if not _filters:
        _filters.update({path.name: path.read_bytes() for path in cache.glob("*.seccomp")})


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One coworkd for all tests that leave it as they found it."""
    with running_daemon(tmp_path_factory.mktemp("coworkd")) as running:
        yield running


@pytest.fixture
def fresh_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A coworkd of one's own."""
    with running_daemon(tmp_path / "coworkd") as running:
        yield running
