"""Starting a program of ours for a coworkd that has none: the embedded mode.

Such a program gets an interpreter without the site module and with just the paths its few imports need, which keeps it small. It is no
child of the supervisor's to mourn: it lives in a session of its own, is found again by its socket, and ends itself when nobody comes back.
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
START_TIMEOUT_S = 10.0
# typing_extensions is optional to msgspec, and would bring inspect and ast with it: 1.5 MiB that every fork copies.
_START = (
    "import sys; sys.path[:0] = sys.argv[1].split(':'); sys.modules['typing_extensions'] = None; "
    "from coworkd.{room}.__main__ import main; "
    "sys.exit(main(sys.argv[2:]))"
)

_started: list[subprocess.Popen[bytes]] = []
"""Programs that are children of this process, to be reaped by it."""


def program_command(room: str, arguments: list[str]) -> list[str]:
    """The argv of `coworkd.ROOM` with `arguments`."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    libraries = os.path.dirname(os.path.dirname(os.path.abspath(msgspec.__file__)))
    return [sys.executable, "-I", "-S", "-c", _START.format(room=room), f"{ours}:{libraries}", *arguments]


def reap() -> None:
    """Reap those that ended."""
    _started[:] = [child for child in _started if child.poll() is None]


def start_program(name: str, command: list[str], path: str, *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Start `command` and wait until it has made its socket `path`; `name` is for people. Raises `Unavailable`. Blocking."""
    if os.path.exists(path):
        os.unlink(path)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    _started.append(child)
    deadline = time.monotonic() + timeout_s
    while not os.path.exists(path):
        if child.poll() is not None:
            raise Unavailable(f"{name} ended at once with status {child.returncode}; its words are above")
        if time.monotonic() > deadline:
            child.kill()
            child.wait()
            raise Unavailable(f"{name} did not come up in {timeout_s:g} s")
        time.sleep(0.005)


def answers(path: str) -> bool:
    """Whether a program of ours listens at `path`, even one too busy to accept. Never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:  # its backlog is full
            return True
        except OSError:
            return False
    return True
