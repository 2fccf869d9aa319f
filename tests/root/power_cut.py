"""One power cut: a coworkd on a loop disk works without pause while its file is copied, and a fresh coworkd is started on the copy."""

from __future__ import annotations

import contextlib
import filecmp
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError
from tests.root.conftest import Daemon, running_daemon
from tests.root.live import client_of

NAMES = ("ann", "bob", "cleo", "dan")
_STEADY = "steady"
_TRIES = 50


class Load:
    """Ensures, commands that write, and deletes, from a thread of their own, until `stop`."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self._daemon = daemon
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        with client_of(self._daemon) as client:
            client.session_ensure(name=_STEADY)
            ran = client.run(session=_STEADY, argv=["sh", "-c", "echo durable >~/file; sync ~/file ~"])
            assert ran.exit.code == 0
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)

    def has_done(self, count: int) -> bool:
        """So many steps; also where it has failed, and does no more."""
        return self.done >= count or self.error is not None

    def _run(self) -> None:
        try:
            with client_of(self._daemon) as client:
                while not self._stopping.is_set():
                    self._step(client)
                    self.done += 1
        except BaseException as error:
            self.error = error

    def _step(self, client: Client) -> None:
        name = self._random.choice(NAMES)
        if self._random.random() < 0.25:
            with contextlib.suppress(CoworkError):
                client.session_delete(session=name, force=True)
            return
        client.session_ensure(name=name)
        client.run(
            session=name,
            argv=["sh", "-c", "mkdir -p ~/d; for i in 1 2 3 4 5; do head -c 20000 /dev/zero >~/d/$i; done"],
        )


def copy_disk(daemon: Daemon, disk: Path, copy: Path) -> None:
    """What the disk would hold if the power went now.

    coworkd is stopped where it is, between two system calls or in one; commands write on, and what they have not synced is not on the
    disk. A file cannot be copied in one moment: two copies that are alike show that nothing was written between them.
    """
    daemon.child.send_signal(signal.SIGSTOP)
    try:
        for _ in range(_TRIES):
            for path in (copy, copy.with_suffix(".again")):
                subprocess.run(("cp", "--sparse=always", str(disk), str(path)), check=True)
            if filecmp.cmp(copy, copy.with_suffix(".again"), shallow=False):
                return
        raise AssertionError("the disk is written to without pause")
    finally:
        daemon.child.send_signal(signal.SIGCONT)
        copy.with_suffix(".again").unlink(missing_ok=True)


def assert_recovers(disk: Path, place: Path) -> None:
    """A coworkd comes up on the copy, every session is whole or can be made so, and the log tells the truth."""
    with running_daemon(place, "--disk", f"{disk}:64M") as daemon, client_of(daemon) as client:
        usage = client.storage_usage()
        assert usage.state == "ok", usage
        found = {info.name for info in client.session_list().sessions}
        assert _STEADY in found
        assert client.run(session=_STEADY, argv=["cat", "file"]).stdout == b"durable\n"
        for name in (*NAMES, _STEADY):
            client.session_ensure(name=name)
            ran = client.run(session=name, argv=["sh", "-c", "echo again >~/after; cat ~/after"])
            assert (ran.exit.code, ran.stdout) == (0, b"again\n"), name
        for name in NAMES:
            client.session_delete(session=name, force=True)
        verified = client.audit_verify()
        assert verified.ok, verified
    shutil.rmtree(place)
    disk.unlink()
