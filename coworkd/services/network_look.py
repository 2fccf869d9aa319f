"""What the guest's network is like: cheaply, whether it may have changed; and by a helper, what it is now.

`read_routes` reads two files of /proc without what counts packets in them, so that equal texts mean equal routes. `look` runs the
helper (`system.network_probe`), which ends before it is asked again. Blocking, both; the second for a worker thread.

Sources: proc_net(5); the kernel's net/ipv6/route.c for the columns of ipv6_route, net/ipv4/fib_trie.c for those of route.
"""

from __future__ import annotations

import subprocess
import sys

import msgspec

from coworkd.model.errors import UNDECODABLE
from coworkd.model.network import NetworkFacts

HELPER = (sys.executable, "-I", "-m", "coworkd.system.network_probe")
LOOK_DEADLINE_S = 30.0
"""A bound on a hang: an emulated guest that comes up takes seconds to import pyroute2."""
_IPV4, _IPV6 = "/proc/self/net/route", "/proc/self/net/ipv6_route"
_IPV4_COUNTERS = (4, 5)
_IPV6_COUNTERS = (6, 7)


def read_routes(ipv4: str = _IPV4, ipv6: str = _IPV6) -> str:
    """The routes of this network namespace as text that changes when they do; a kernel without one family has none of it."""
    return _without(ipv4, _IPV4_COUNTERS) + _without(ipv6, _IPV6_COUNTERS)


def _without(path: str, counters: tuple[int, ...]) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file]
    except FileNotFoundError:
        return ""
    return "\n".join(" ".join(word for place, word in enumerate(row) if place not in counters) for row in rows) + "\n"


def look() -> NetworkFacts:
    """Ask the helper. Raises `OSError` where it fails or does not end, and says why."""
    try:
        done = subprocess.run(
            HELPER,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"LC_ALL": "C"},
            cwd="/",
            timeout=LOOK_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the network helper did not end within {LOOK_DEADLINE_S:.0f} s") from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise OSError(f"the network helper failed: {last[0][:200]}")
    try:
        return msgspec.json.decode(done.stdout, type=NetworkFacts)
    except UNDECODABLE as error:
        raise OSError(f"the network helper told nothing usable: {error}") from error
