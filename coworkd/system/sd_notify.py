"""sd_notify(3) without libsystemd: one datagram to whoever started us. Thin; where nobody listens nothing is sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

STATUS_CHARACTERS = 256


def notify(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send assignments such as `READY=1`, one a line; False where no NOTIFY_SOCKET is named. Raises `OSError`."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
        sending.setblocking(False)
        sending.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
    return True


def watchdog_s(environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> float | None:
    """Within how many seconds the manager wants a sign of life from `pid` (our own); None where it wants none. sd_watchdog_enabled(3)."""
    asked = environ.get("WATCHDOG_PID", "")
    if asked and asked != str(os.getpid() if pid is None else pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) > 0 else None


def status(text: str) -> str:
    """The assignment that `systemctl status` shows; on one line, bounded."""
    return f"STATUS={' '.join(text.split())[:STATUS_CHARACTERS]}"
