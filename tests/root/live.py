"""What tests with a real coworkd share: clients, throw-away sessions, and the look at the machine from outside."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from coworkd.client.sync import Client, connect
from coworkd.model.errors import NotFound
from coworkd.model.process import Exit
from tests.root.conftest import Daemon

T = TypeVar("T")
STEADY_S = 1.0
WAIT_S = 30.0
"""Long beside anything that is waited for: what does not come fails a little later, and a busy machine fails nothing."""
_numbers = itertools.count(1)


def exited(code: int) -> Exit:
    return Exit(code=code, signal=None, reason="exited")


def client_of(daemon: Daemon) -> Client:
    return connect(daemon.uri, client_name="root-test")


@contextlib.contextmanager
def session_of(client: Client, name: str, **fields: Any) -> Iterator[str]:
    """A session of that name, deleted with what runs in it at the end."""
    client.session_ensure(name=name, **fields)
    try:
        yield name
    finally:
        with contextlib.suppress(NotFound):
            client.session_delete(session=name, force=True)


def fresh_mark() -> str:
    """A number of seconds nobody else sleeps: finds a command of ours among all processes of the machine."""
    return f"{4000 + next(_numbers)}.{os.getpid()}"


def living(mark: str) -> list[int]:
    """The processes with `mark` among their arguments, zombies left out."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
    return found


def wait_until(true: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Poll, since nobody tells us of what happens inside a sandbox; fails with `what`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Children of every thread of `pid`, zombies included."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text().split())
    return found


@contextlib.contextmanager
def program(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program beside the test. Where it still runs at the end of the block it is killed: a test that failed must not wait for it."""
    with subprocess.Popen(command, **options) as child:
        try:
            yield child
        finally:
            child.kill()


def busyness() -> float:
    """How many times more is ready to run than the machine has processors, at least 1."""
    averages = Path("/proc/loadavg").read_text().split()
    ready = max(float(averages[0]), int(averages[3].partition("/")[0]))
    return max(1.0, ready / (os.cpu_count() or 1))


@contextlib.contextmanager
def took_at_most(limit_s: float) -> Iterator[None]:
    """The block takes no longer than that; on a busy machine, as many times longer as it is busy.

    It finds what waits for something it must not wait for: the limit lies between what the block takes and how long that would take.
    """
    before, start = busyness(), time.monotonic()
    yield
    took_s = time.monotonic() - start
    allowed_s = limit_s * max(before, busyness())
    assert took_s <= allowed_s, f"took {took_s:.2f} s, at most {allowed_s:.2f} s are allowed"


def when_steady(look: Callable[[], T], *, still_s: float = STEADY_S, within_s: float = WAIT_S) -> T:
    """What is seen once it stays the same for `still_s`: coworkd listens to the pressure of a new session a moment after it was opened,
    and its launcher makes what waits for the next command. What never stands is told as it is after `within_s`.
    """
    last, since = look(), time.monotonic()
    deadline = since + within_s
    while time.monotonic() - since < still_s and time.monotonic() < deadline:
        time.sleep(0.02)
        if (now := look()) != last:
            last, since = now, time.monotonic()
    return last


def links_of(pid: int) -> list[str]:
    """What the descriptors of `pid` are of; none where it has gone."""
    links = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return links
