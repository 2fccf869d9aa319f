"""The two coworkds that the demo is shown on: one embedded in this machine, and one in a guest that it builds and boots."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
SESSION = "demo"
STOP_S = 20
COMMAND_S = 120
BOOT_S = 300
"""An emulated guest boots in ten seconds, and in a hundred on a machine that is busy with other things."""
BUILD_S = 1800
SHOWN_COLUMNS = 180


class DemoFailed(Exception):
    """A step did not show what it must."""


def check(right: bool, otherwise: str) -> None:
    if not right:
        raise DemoFailed(otherwise)


def say(text: str) -> None:
    print(text, flush=True)


def show(text: str) -> None:
    """What a program said, set off from what the demo says."""
    for line in text.splitlines():
        say(f"      {line if len(line) <= SHOWN_COLUMNS else line[: SHOWN_COLUMNS - 1] + '…'}")


class Guest(ABC):
    """A coworkd of the demo's own. `files` holds all that is made for it; folders are made and offered below `shared`."""

    uri: str

    def __init__(self, files: Path, shared: Path) -> None:
        self.files = files
        self.shared = shared
        self.build = shared / "build"
        self.build.mkdir(parents=True)
        # The directory above is root's alone. Where the kernel cannot map owners on this file system, the session's own
        # user needs the right to write here.
        self.build.chmod(0o777)

    def offer(self, directory: Path) -> str:
        """How `--folder` names this directory."""
        return str(directory)

    @abstractmethod
    def running_with(self, word: str) -> list[str]:
        """What still runs of commands whose words hold `word`."""

    def ctl(self, *words: str, status: int = 0) -> str:
        """Run coworkctl, show what it was asked and what it said, and insist on its exit status; returns both streams' text."""
        return run_shown("coworkctl", "--to", self.uri, *words, status=status, hidden=2)

    def run(self, *argv: str, status: int = 0) -> str:
        """`coworkctl run` in the demo's session."""
        return self.ctl("run", "--session", SESSION, "--", *argv, status=status)


class Embedded(Guest):
    """`coworkd local` on a directory of this machine."""

    def __init__(self, files: Path) -> None:
        super().__init__(files, files)
        self.uri = f"unix://{files / 'socket'}"

    def running_with(self, word: str) -> list[str]:
        return processes_with(word)


class Machine(Guest):
    """A guest with its own kernel; its commands are on no process table of ours, so coworkd is asked."""

    def __init__(self, files: Path) -> None:
        self.bundle = files / "vm"
        self.share = files / "share"
        super().__init__(files, self.share / "shared")
        self.uri = f"hybrid://{self.bundle / 'run' / 'vsock.sock'}?port=5005"

    def offer(self, directory: Path) -> str:
        """Sessions see what lies below the share, and nothing else: what is elsewhere is copied there."""
        if not directory.is_relative_to(self.shared):
            shutil.copytree(directory, self.shared / directory.name)
            return directory.name
        return str(directory.relative_to(self.shared))

    def running_with(self, word: str) -> list[str]:
        return [line for line in self.ctl("ps").splitlines() if "running" in line]


def run_shown(program: str, *words: str, status: int = 0, hidden: int = 0, limit_s: float = COMMAND_S) -> str:
    """Run a program of ours; the first `hidden` words are not worth showing."""
    say(f"    $ {program} {shlex.join(words[hidden:])}")
    command = [str(BIN / program), *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
    )
    said = done.stdout.decode("utf-8", "replace")
    show(said)
    check(done.returncode == status, f"{program} ended with {done.returncode}, and {status} was right")
    return said


@contextlib.contextmanager
def open_embedded() -> Iterator[Guest]:
    """Start coworkd, stop it by TERM, remove its files."""
    files = Path(tempfile.mkdtemp(prefix="coworkd-demo-"))
    guest = Embedded(files)
    command = [str(BIN / "coworkd"), "local", "--state", str(files / "state"), "--socket", str(files / "socket")]
    try:
        with (
            (files / "log").open("wb") as log,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            ) as child,
        ):
            try:
                assert child.stdout is not None
                line = child.stdout.readline().decode()
                check(line.startswith("ready "), f"coworkd did not start:\n{(files / 'log').read_text()}")
                yield guest
            finally:
                stop(child)
    finally:
        shutil.rmtree(files)


def stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        raise


@contextlib.contextmanager
def open_machine() -> Iterator[Guest]:
    """Build the image where it is not built, boot it, stop it, remove all but the image."""
    image = build_image()
    files = Path(tempfile.mkdtemp(prefix="coworkd-demo-"))
    try:
        guest = Machine(files)
        bundle = ("--bundle", str(guest.bundle))
        run_shown("cowork-vm", "create", *bundle, "--image", str(image), "--share", str(guest.share), "--disk", "2G")
        try:
            run_shown("cowork-vm", "up", *bundle, "--wait", str(BOOT_S), limit_s=BOOT_S + COMMAND_S)
            guest.ctl("boot-time")
            yield guest
        except BaseException:
            show("\n".join((guest.bundle / "logs" / "serial.log").read_text(errors="replace").splitlines()[-25:]))
            raise
        finally:
            run_shown("cowork-vm", "down", *bundle)
        run_shown("cowork-vm", "rm", "--yes", *bundle)
    finally:
        shutil.rmtree(files)


def build_image() -> Path:
    """The directory of this machine's own architecture's image, with a compiler in it."""
    builder, output = ROOT / "rootfs-build" / "build", ROOT / "build" / "demo-image"
    lists = (ROOT / "rootfs-build" / "packages" / "minimal.txt", HERE / "packages.txt")
    words = [
        str(builder),
        "--no-compress",
        "--output",
        str(output),
        *(word for one in lists for word in ("--packages", str(one))),
    ]
    say(f"    $ {shlex.join(os.path.relpath(word, ROOT) if os.path.isabs(word) else word for word in words)}")
    subprocess.run(words, stdin=subprocess.DEVNULL, check=True, timeout=BUILD_S)
    return output / platform.machine()


def processes_with(word: str) -> list[str]:
    """Command lines of this machine that hold `word`, our own left out."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
            if word in command and int(pid) != os.getpid():
                found.append(f"{pid} {command}")
    return found


def check_nothing_left(files: Path) -> None:
    check(not files.exists(), f"{files} was not removed")
    check(not (left := processes_with(str(files))), f"still running: {left}")
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(files) in line]
    check(not mounts, f"still mounted: {mounts}")
