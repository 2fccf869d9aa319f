"""A guest's coworkd without a guest: launcher, coworkd-egress and `coworkd serve` on a directory, restarted as systemd would.

    DIRECTORY/sessions  run/  coworkd.toml  update.pub  log

The releases are this very coworkd with another version, changed where a test wants them to be: what it execs into is real.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import coworkd
from coworkd.cli.egress_start import ensure_egress
from coworkd.cli.launcher_start import ensure_launcher
from coworkd.client import connect
from coworkd.model.calls_update import UpdateStatus
from coworkd.system.guest import read_bwrap_features
from host_stub.release import compose_manifest, gather, running_python, write_signed
from host_stub.release_key import SecretKey, compose_public_key, make_key
from host_stub.update_disk import write_update_disk
from tests.root.disk_lab import loop_device

_REPO = Path(coworkd.__file__).resolve().parents[1]
_PACKAGE = Path(coworkd.__file__).resolve().parent
_COME_UP_S = 90.0
_LINGER_S = 20.0


def make_release(
    target: Path,
    version: str,
    key: SecretKey,
    *,
    change: Callable[[Path], None] = lambda code: None,
    policies: Path | None = None,
) -> Path:
    """This coworkd as `version`, signed; `change` is given its package directory first."""
    base = _base_release()
    shutil.copytree(base, target)
    if policies is not None:
        shutil.copytree(policies, target / "policies")
    package = target / "code" / "coworkd"
    start = package / "__init__.py"
    start.write_text(re.sub(r'__version__ = "[^"]*"', f'__version__ = "{version}"', start.read_text()))
    change(package)
    for changed in (path for path in package.rglob("*.py") if path.read_bytes() != _base_of(path, target).read_bytes()):
        for stale in (changed.parent / "__pycache__").glob(f"{changed.stem}.*"):
            stale.unlink()
    write_signed(target, compose_manifest(target, version=version, python=(running_python(),)), key)
    return target


@lru_cache(maxsize=1)
def _base_release() -> Path:
    """This coworkd with its bytecode, once for all tests; gone with this process."""
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    gather(Path(directory) / "release", code=_PACKAGE, policies=None)
    return Path(directory) / "release"


def _base_of(path: Path, target: Path) -> Path:
    return _base_release() / path.relative_to(target)


class UpdateLab:
    """`key` is what the image trusts; `device` the update disk's node once there is one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sessions = directory / "sessions"
        self.slots = self.sessions / ".coworkd" / "slots"
        self.run = directory / "run"
        self.socket = directory / "coworkd.sock"
        self.key = make_key()
        self.child: subprocess.Popen[bytes] | None = None
        for path in (self.sessions, self.run):
            path.mkdir(parents=True)
        (directory / "update.pub").write_bytes(compose_public_key(self.key.public))

    def configure(self, device: str, *, commit_s: float = 1.0) -> None:
        (self.directory / "coworkd.toml").write_text(
            f'state_dir = "{self.sessions}/.coworkd"\n'
            f'sessions_dir = "{self.sessions}"\n'
            f'endpoints = ["unix://{self.socket}"]\n'
            f'launcher_socket = "{self.run}/launcher.sock"\n'
            f'egress_socket = "{self.run}/egress.sock"\n'
            f'cache_dir = "{self.run}/cache"\n'
            f'[storage]\nkind = "directory"\n'
            f'[update]\nkey = "{self.directory}/update.pub"\ndevice = "{device}"\n'
            f'mount_point = "{self.directory}/smol"\ncommit_s = {commit_s}\n'
        )

    @contextlib.contextmanager
    def disk(self, release: Path) -> Iterator[str]:
        """An update disk with `release` on a loop device."""
        image = self.directory / f"{release.name}.img"
        write_update_disk(release, image, kind="ext4")
        with loop_device(image) as device:
            yield device

    def start(self) -> None:
        """As its unit is started."""
        ensure_launcher(
            runtime_dir=str(self.run), bubblewrap=read_bwrap_features().path, cgroup=None, linger_s=_LINGER_S
        )
        ensure_egress(runtime_dir=str(self.run), linger_s=_LINGER_S)
        with (self.directory / "log").open("ab") as log:
            command = [sys.executable, "-m", "coworkd", "serve", "--config", str(self.directory / "coworkd.toml")]
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=_REPO)

    def ready(self, wanted: Callable[[UpdateStatus], bool] = lambda status: True) -> UpdateStatus:
        """What it says once all is there and `wanted`; a coworkd that has ended meanwhile is started again, as its unit would be."""
        deadline = time.monotonic() + _COME_UP_S
        while time.monotonic() < deadline:
            if self.child is not None and self.child.poll() is not None:
                self.start()
            with contextlib.suppress(Exception), connect(f"unix://{self.socket}") as client:
                status = client.update_status()
                if wanted(status):
                    return status
            time.sleep(0.1)
        raise AssertionError(f"it did not come to that:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.child is not None:
            self.child.send_signal(number)
            self.child.wait(60)
            self.child = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def kinds(self, *last: str) -> list[str]:
        """What of updates the audit log has, in order, once it ends with `last`."""
        deadline = time.monotonic() + _COME_UP_S
        while True:
            with connect(f"unix://{self.socket}") as client:
                records = client.audit_tail(limit=1000).records
            kinds = [record["kind"] for record in records if record["kind"].startswith("update.")]
            if not last or kinds[-len(last) :] == list(last):
                return kinds
            assert time.monotonic() < deadline, f"{kinds} does not end with {last}"
            time.sleep(0.1)


@contextlib.contextmanager
def update_lab(directory: Path) -> Iterator[UpdateLab]:
    """Gone at the end, programs and all."""
    lab = UpdateLab(directory)
    try:
        yield lab
    finally:
        lab.stop()
        for name in ("launcher", "egress"):
            _end(lab.run / f"{name}.sock")
        shutil.rmtree(directory, ignore_errors=True)


def _end(path: Path) -> None:
    """TERM to whoever listens on it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.connect(str(path))
        pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        ended = os.pidfd_open(pid)
        signal.pidfd_send_signal(ended, signal.SIGTERM)
        select.select([ended], [], [], 10)
        os.close(ended)
