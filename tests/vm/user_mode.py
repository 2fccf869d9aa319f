"""User Mode Linux: a kernel of its own, as a program, on this machine's own files. For tests of what this machine's kernel lacks or
does not give: cgroup v2 with all controllers, project quota, every capability.

The root is the machine's, seen read-only, with a tmpfs over it: nothing that is done inside stays, and no image is needed. A start takes
a second, and code runs at the machine's own speed.

Works around one thing: the kernel gives and takes the registers of its processes by ptrace in a block whose size was fixed when it was
built, and a processor with AMX has a larger one (`ptrace set fp regs failed, errno = 14`). `user_mode_registers.c` stands between;
it is compiled at first use. To be removed when the kernel asks for the size (Linux 6.13 and newer do).

Sources: linux Documentation/virt/uml/user_mode_linux_howto_v2.rst, arch/x86/um/os-Linux/registers.c.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
PROGRAM = "linux.uml"
_INIT = HERE / "inside_init.sh"
_REGISTERS = HERE / "user_mode_registers.c"


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a command inside did. `status` is None where the kernel ended before the command did."""

    status: int | None
    output: str
    console: str


def run_inside(
    command: Sequence[str], results: Path, *, memory_mib: int = 1024, timeout_s: float = 300, checkout: Path = REPO
) -> Ran:
    """Run the command inside, in the directory `checkout`, wherever it lies; `results` is a new directory, shown at /run/results."""
    results.mkdir(parents=True)
    (results / "command").write_text(f"cd {shlex.quote(str(checkout))} && exec {shlex.join(command)}\n")
    kernel = [PROGRAM, f"mem={memory_mib}M", "rootfstype=hostfs", "rootflags=/", "ro"]
    kernel += [
        "con=null",
        "con0=null,fd:1",
        "quiet",
        "umid=coworkd",
        f"uml_dir={results}/",
        "panic=-1",
        f"init={_INIT}",
    ]
    kernel += ["--", str(results), str(checkout)]
    with (results / "console").open("wb") as console:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *kernel],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_PRELOAD": str(compile_registers(results))},
            start_new_session=True,
        )
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if child.poll() is None:
                _end(child)
    return Ran(status=_status(results), output=_text(results / "output"), console=_text(results / "console"))


def compile_registers(directory: Path) -> Path:
    """The library to preload. Raises CalledProcessError where gcc fails."""
    library = directory / "registers.so"
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(_REGISTERS)], check=True
    )
    return library


def lack_of_user_mode() -> str | None:
    """Why it cannot run here, or None."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed: ./setup test installs it (user-mode-linux)"
    return None


def _end(child: subprocess.Popen[bytes]) -> None:
    """The kernel's processes are one process group, and each traces the next: all have to go."""
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(10)


def _status(results: Path) -> int | None:
    text = _text(results / "status").strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
