"""Whether a thread that waits in the kernel is about to end, or was asked to: by the signals that it has not taken yet.

Rules
- What is gone, or cannot be seen, is about to end.
- A signal that ends it (by its default, and not caught, ignored or blocked) counts, and so does one that asks it to end, which it catches:
  INT, TERM, HUP and QUIT. Any other it may take later: a clock, a child, a window's size, a stop.

Source: proc_pid_status(5), signal(7).
"""

from __future__ import annotations

import re
import signal

_FIELD = re.compile(rb"^(State|SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt):\s+(\S+)", re.MULTILINE)
_DEAD = (b"Z", b"X")


def _mask(*signals: int) -> int:
    return sum(1 << (each - 1) for each in signals)


_ASKS_TO_END = _mask(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HARMLESS = _mask(
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def wants_to_end(pid: int) -> bool:
    """Of a process or a thread. Reads one small file of /proc."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            return parse_status(file.read(8192))
    except OSError:
        return True


def parse_status(status: bytes) -> bool:
    """The same, of what stands in /proc/PID/status."""
    found = dict(_FIELD.findall(status))
    if found.get(b"State") in _DEAD or b"SigCgt" not in found:
        return True
    pending, shared, blocked, ignored, caught = (
        int(found.get(name, b"0"), 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")
    )
    due = (pending | shared) & ~blocked & ~ignored
    return bool(due & (_ASKS_TO_END | ~caught & ~_HARMLESS))
