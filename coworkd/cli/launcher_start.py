"""Starting a launcher for a coworkd that has none: the embedded mode.

The launcher gets an interpreter without the site module and with just the paths its few imports need, which keeps it small. It is no child
of the supervisor's to mourn: it lives in a session of its own and ends itself when nobody comes back.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import msgspec

from coworkd.model.errors import Unavailable

LINGER_S = 30
_START_TIMEOUT_S = 10.0
# typing_extensions is optional to msgspec, and would bring inspect and ast with it: 1.5 MiB that every fork copies.
_START = (
    "import sys; sys.path[:0] = sys.argv[1].split(':'); sys.modules['typing_extensions'] = None; "
    "from coworkd.launcher.__main__ import main; "
    "sys.exit(main(sys.argv[2:]))"
)


_started: list[subprocess.Popen[bytes]] = []
"""Launchers that are children of this process, to be reaped by it."""


def launcher_command(arguments: list[str]) -> list[str]:
    """The argv of a launcher with `arguments`."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    libraries = os.path.dirname(os.path.dirname(os.path.abspath(msgspec.__file__)))
    return [sys.executable, "-I", "-S", "-c", _START, f"{ours}:{libraries}", *arguments]


def ensure_launcher(*, runtime_dir: str, bubblewrap: str, cgroup: str | None, linger_s: float | None) -> str:
    """The socket of the launcher of `runtime_dir`, started now if none answers. Raises `Unavailable`. Blocking."""
    _started[:] = [child for child in _started if child.poll() is None]  # reaps those that ended
    path = os.path.join(runtime_dir, "launcher.sock")
    if answers(path):
        return path
    base = os.path.join(runtime_dir, "base")
    os.makedirs(base, mode=0o700, exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    arguments = ["--socket", path, "--base", base, "--bubblewrap", bubblewrap]
    if cgroup is not None:
        arguments += ["--cgroup", cgroup]
    if linger_s is not None:
        arguments += ["--linger", str(linger_s)]
    child = subprocess.Popen(launcher_command(arguments), stdin=subprocess.DEVNULL, start_new_session=True)
    _started.append(child)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not os.path.exists(path):
        if child.poll() is not None:
            raise Unavailable(f"the launcher ended at once with status {child.returncode}; its words are above")
        if time.monotonic() > deadline:
            child.kill()
            child.wait()
            raise Unavailable(f"the launcher did not come up in {_START_TIMEOUT_S:g} s")
        time.sleep(0.005)
    return path


def answers(path: str) -> bool:
    """Whether a launcher listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
