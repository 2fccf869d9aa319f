"""A coworkd to measure: started on a directory of its own, stopped by TERM, and what the kernel says of its processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from coworkd.client.sync import Client, connect

ROOT = Path(__file__).resolve().parents[2]
SESSION = "bench"
STOP_S = 30
_TICKS = os.sysconf("SC_CLK_TCK")


class Cpu(Struct, frozen=True, kw_only=True):
    """Seconds of CPU: a process's own, and those of its children it has waited for (proc(5), stat)."""

    own_s: float
    children_s: float


class Memory(Struct, frozen=True, kw_only=True):
    """Resident and proportional set size in bytes (proc(5), smaps_rollup)."""

    rss_bytes: int
    pss_bytes: int


class Guest:
    """A running coworkd. `ready_s` is the wall time to its ready line, `ready_cpu` the CPU it had used by then."""

    def __init__(self, child: subprocess.Popen[bytes], directory: Path, ready_s: float) -> None:
        self.directory = directory
        self.uri = f"unix://{directory / 'socket'}"
        self.pid = child.pid
        self.ready_s = ready_s
        self.ready_cpu = read_cpu(child.pid)

    def connect(self) -> Client:
        return connect(self.uri, client_name="bench")

    @property
    def cache_dir(self) -> str:
        return str(self.directory / "state" / ".coworkd" / "cache")


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="coworkd-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def open_guest(directory: Path, *options: str) -> Iterator[Guest]:
    """Start `coworkd local` on `directory`, and see to it that it ends. Its log is `directory/log`."""
    command = [str(Path(sys.executable).parent / "coworkd"), "local"]
    command += ["--state", str(directory / "state"), "--socket", str(directory / "socket"), *options]
    began = time.perf_counter()
    with (
        (directory / "log").open("ab") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        ) as child,
    ):
        try:
            assert child.stdout is not None
            if not child.stdout.readline().startswith(b"ready "):
                raise RuntimeError(f"coworkd did not start:\n{(directory / 'log').read_text()}")
            yield Guest(child, directory, time.perf_counter() - began)
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                raise


def read_cpu(pid: int) -> Cpu:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) / _TICKS for field in fields[11:15])
    return Cpu(own_s=user + system, children_s=children_user + children_system)


def read_memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kibibytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return Memory(rss_bytes=kibibytes["Rss"] * 1024, pss_bytes=kibibytes["Pss"] * 1024)
