"""The disk worker in a mount namespace of its own, talked to in its own words: whatever it mounts is gone with it, loop devices too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coworkd.model import disk
from coworkd.system import packet
from tests.root.live import wait_until

_REPO = Path(__file__).resolve().parents[2]
_PROGRAM = "import socket, sys; from coworkd.workers import disk; disk.serve(socket.socket(fileno=int(sys.argv[1])))"
MIB = 1024 * 1024
_decoder: msgspec.msgpack.Decoder[disk.Answer] = msgspec.msgpack.Decoder(disk.Answer)


class DiskLab:
    """One worker and its namespace."""

    def __init__(self, child: subprocess.Popen[bytes], connection: socket.socket, mount_point: Path) -> None:
        self._child = child
        self._connection = connection
        self.mount_point = mount_point

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def inside(self) -> Path:
        """The mount point as the worker sees it."""
        return Path(f"/proc/{self.pid}/root{self.mount_point}")

    def loop(self, file: Path, size: int = 64 * MIB, **fields: object) -> disk.BroughtUp:
        return self.up(kind="loop", loop_file=os.fsencode(file), loop_size=size, **fields)

    def up(self, **fields: object) -> disk.BroughtUp:
        answer = self.ask(self.bring_up(**fields))
        assert isinstance(answer, disk.BroughtUp)
        return answer

    def bring_up(self, **fields: object) -> disk.BringUp:
        return msgspec.convert({"id": 1, "mount_point": os.fsencode(self.mount_point), **fields}, disk.BringUp)

    def ask(self, request: disk.Request) -> disk.Answer:
        data, ancillary, _ = packet.pack(msgspec.msgpack.encode(request))
        self._connection.sendmsg(data, ancillary)
        message, _ = packet.unpack(*self._connection.recvmsg(*packet.RECEIVE_ARGUMENTS)[:3])
        assert message, "the worker has ended"
        return _decoder.decode(message)

    def run(self, *argv: str) -> str:
        """A program in the worker's namespace."""
        command = ("nsenter", "--mount", "--target", str(self.pid), "--", *argv)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def unmount(self) -> None:
        """As a machine that is switched off in order; the loop device is given back."""
        self.run("umount", str(self.mount_point))


@contextmanager
def disk_lab(directory: Path, *, first: Sequence[str] = ("true",)) -> Iterator[DiskLab]:
    """`first` is run in the namespace before the worker begins."""
    mount_point = directory / "sessions"
    mount_point.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    script = 'set -e; first=$1; shift; eval "$first"; exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", " ".join(first)]
    command += [sys.executable, "-c", _PROGRAM, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=(theirs.fileno(),), cwd=_REPO) as child:
        theirs.close()
        try:
            # Until unshare(1) has become the shell its namespace is ours, and what a test mounts there would stay.
            wait_until(
                lambda: not Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"unshare\0"), "a namespace"
            )
            yield DiskLab(child, ours, mount_point)
        finally:
            ours.close()
            child.wait(60)


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """A loop device on `file`, as a disk of a machine."""
    done = subprocess.run(("losetup", "--find", "--show", str(file)), check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        for _ in range(50):  # a mount namespace that has ended is taken down by the kernel a moment later
            subprocess.run(("losetup", "--detach", device), check=False, capture_output=True)
            if not Path(f"/sys/block/{Path(device).name}/loop/backing_file").exists():
                break
            time.sleep(0.05)


def make_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
