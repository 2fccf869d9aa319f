from __future__ import annotations

import os
import signal
import subprocess

import pytest

from coworkd.system.pending_signals import parse_status, wants_to_end


def status(
    *, state: str = "D", thread: int = 0, shared: int = 0, blocked: int = 0, ignored: int = 0, caught: int = 0
) -> bytes:
    """Signals by number, one for each mask; 0 is none."""
    masks = [f"{1 << (number - 1) if number else 0:016x}" for number in (thread, shared, blocked, ignored, caught)]
    fields = zip(("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"), masks, strict=True)
    lines = [f"State:\t{state} (whatever)", "SigQ:\t0/1", *(f"{name}:\t{mask}" for name, mask in fields)]
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        ({}, False),
        ({"state": "Z"}, True),
        ({"thread": signal.SIGKILL}, True),
        ({"shared": signal.SIGUSR1}, True),
        ({"shared": signal.SIGUSR1, "caught": signal.SIGUSR1}, False),
        ({"shared": signal.SIGALRM, "caught": signal.SIGALRM}, False),
        ({"shared": signal.SIGALRM, "ignored": signal.SIGALRM}, False),
        ({"shared": signal.SIGINT, "caught": signal.SIGINT}, True),
        ({"shared": signal.SIGINT, "blocked": signal.SIGINT}, False),
        ({"shared": signal.SIGWINCH}, False),
        ({"thread": signal.SIGSTOP}, False),
        ({"shared": signal.SIGTSTP, "caught": signal.SIGTSTP}, False),
        ({"shared": signal.SIGQUIT}, True),
        ({"shared": 64}, True),
    ],
)
def test_what_ends_it_and_what_asks_it_to_end(given: dict[str, int], ends: bool) -> None:
    assert parse_status(status(**given)) is ends  # type: ignore[arg-type]


def test_what_says_nothing_is_about_to_end() -> None:
    assert parse_status(b"") is True


def test_processes() -> None:
    assert wants_to_end(os.getpid()) is False
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert wants_to_end(child.pid) is True
    assert wants_to_end(child.pid) is True
