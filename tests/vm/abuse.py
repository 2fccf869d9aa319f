"""Five ways for a session to be a bad neighbour, each as a session of its own that does it until it is deleted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from coworkd.client.sync import Client
from coworkd.model.errors import CoworkError, NotFound
from coworkd.model.policy import LimitsRequest

MIB = 1 << 20
FLOODS = 50
_END_S = 120.0
_FILL = "b = bytearray({mib} << 20)\nwhile True:\n    for at in range(0, len(b), 4096): b[at] = (b[at] + 1) & 255"
_FORK = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
_WAIT_AND_FLOOD = "read word </tmp/gate; exec cat /dev/zero"
"""All at once, when the pipe has had its writer: fifty floods leave the start of a fifty-first a fiftieth of the processors."""
_WRITE = "while :; do dd if=/dev/zero of=$HOME/full bs=1M 2>/dev/null; sync; rm -f $HOME/full; done"


def burn_every_core(client: Client, session: str) -> None:
    """Twice as many commands that never rest as there are processors."""
    client.session_ensure(name=session)
    for _ in range(4):
        client.start(session, ["sh", "-c", "while :; do :; done"], attach=False)


def fill_memory(client: Client, session: str) -> None:
    """More than it may have without being slowed down, and all of it in use."""
    client.session_ensure(name=session, limits=LimitsRequest(memory_max=256 * MIB, memory_high=160 * MIB))
    client.start(session, ["python3", "-c", _FILL.format(mib=150)], attach=False)
    client.start(session, ["python3", "-c", _FILL.format(mib=400)], attach=False)


def fork_at_its_limit(client: Client, session: str) -> None:
    """As many processes as it may have, all of which want more."""
    client.session_ensure(name=session, limits=LimitsRequest(pids_max=128))
    client.start(session, ["python3", "-c", _FORK], attach=False)


def flood_stdout(client: Client, session: str) -> None:
    """Many commands that write as fast as they can, and nobody reads."""
    client.session_ensure(name=session)
    client.run(session, ["mkfifo", "/tmp/gate"], timeout_s=240)
    for _ in range(FLOODS):
        client.start(session, ["sh", "-c", _WAIT_AND_FLOOD], attach=False)
    client.run(session, ["sh", "-c", "exec 3>/tmp/gate; sleep 1"], timeout_s=240)


def fill_its_disk(client: Client, session: str) -> None:
    """All that it may have on the session disk, again and again."""
    client.session_ensure(name=session, limits=LimitsRequest(disk_max=48 * MIB))
    client.start(session, ["sh", "-c", _WRITE], attach=False)


WAYS: dict[str, Callable[[Client, str], None]] = {
    "burns every core": burn_every_core,
    "fills its memory": fill_memory,
    "forks at its limit": fork_at_its_limit,
    f"floods stdout from {FLOODS} commands": flood_stdout,
    "fills its disk": fill_its_disk,
}


@contextlib.contextmanager
def abused(client: Client, way: str, settle_s: float = 1.0) -> Iterator[str]:
    """While a session does that; it is gone afterwards, with all of its commands."""
    session = "abuse-" + way.split()[0]
    try:
        WAYS[way](client, session)
        time.sleep(settle_s)
        yield session
    finally:
        _remove(client, session)


def _remove(client: Client, session: str) -> None:
    """An emulated guest may want more time for the ends of all its commands than one call gives them."""
    deadline = time.monotonic() + _END_S
    while True:
        try:
            client.session_delete(session=session, force=True)
        except NotFound:
            return
        except CoworkError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def ping_times(client: Client, count: int, pause_s: float = 0.02) -> list[float]:
    """Seconds from asking to the answer, one after the other."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        client.ping()
        took.append(time.perf_counter() - began)
        time.sleep(pause_s)
    return took
