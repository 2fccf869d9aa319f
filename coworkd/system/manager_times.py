"""When systemd reached what, asked of systemd itself: `systemctl show`, which needs no message bus for root.

Timestamps are of CLOCK_MONOTONIC, in microseconds; 0 is "never". Sources: systemctl(1), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import errno
import shutil
import subprocess

_ASK_TIMEOUT_S = 30.0
_MANAGER = (
    "InitRDTimestampMonotonic",
    "UserspaceTimestampMonotonic",
    "SecurityStartTimestampMonotonic",
    "SecurityFinishTimestampMonotonic",
    "GeneratorsStartTimestampMonotonic",
    "GeneratorsFinishTimestampMonotonic",
    "UnitsLoadStartTimestampMonotonic",
    "UnitsLoadFinishTimestampMonotonic",
    "FinishTimestampMonotonic",
)
_UNIT = ("Id", "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")


def read_manager_times() -> dict[str, float]:
    """The manager's own moments, in seconds since the kernel's start; those never reached are left out. Raises `OSError`. Blocking."""
    (record,) = parse_records(_ask(["show", f"--property={','.join(_MANAGER)}"])) or [{}]
    return {name: seconds for name in _MANAGER if (seconds := _seconds(record.get(name, ""))) is not None}


def read_unit_times() -> list[tuple[str, float, float]]:
    """Each unit that came up: its name, when its start began, and when it was up. Raises `OSError`. Blocking."""
    times = []
    for record in parse_records(_ask(["show", f"--property={','.join(_UNIT)}", "*.service", "*.mount"])):
        began, up = (_seconds(record.get(name, "")) for name in _UNIT[1:])
        if began is not None and up is not None and up >= began:
            times.append((record.get("Id", "?"), began, up))
    return sorted(times, key=lambda item: item[1])


def parse_records(text: str) -> list[dict[str, str]]:
    """`KEY=VALUE` lines, records parted by empty ones."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def _seconds(text: str) -> float | None:
    return int(text) / 1_000_000 if text.isdecimal() and int(text) > 0 else None


def _ask(arguments: list[str]) -> str:
    program = shutil.which("systemctl", path="/usr/bin:/bin")
    if program is None:
        raise OSError(errno.ENOENT, "there is no systemctl here")
    try:
        done = subprocess.run(
            [program, "--no-pager", *arguments], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"systemctl does not answer in {_ASK_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise OSError(errno.EIO, (done.stderr.strip() or f"systemctl ended with {done.returncode}").splitlines()[0])
    return done.stdout
