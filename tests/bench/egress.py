"""How fast the way out is: throughput, CPU per byte, new connections, small requests, memory; ours and the others by turns."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from tests.bench.egress_peers import (
    NAMED,
    TARGET,
    Footprint,
    Peer,
    open_nothing,
    open_one_socat,
    open_ours,
    open_runtime,
    open_socat,
)
from tests.bench.others import NotInstalled
from tests.root.lab import Lab, open_lab

OURS, SOCAT, SOCAT_BIG, RUNTIME = "coworkd", "socat", "socat -b 262144", "sandbox-runtime"
ONE_SOCAT, NOTHING = "one socat, no bridge", "nothing between"
MIB = 1024 * 1024
TUNNELS, MANY_TUNNELS, STALLED = 200, 2000, 100
COURSES = {
    f"{name}, {do}": (via, do) for via, name in (("connect", "CONNECT"), ("socks", "SOCKS5")) for do in ("down", "up")
}
CROWDS = (1, 16)
_SETTLE_S = 0.3
_CLOSED_S = 20.0
_FAILURES_LIMIT = 20


class EgressEffort(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    bulk_bytes: int
    rounds: int
    requests: int
    crowd: int
    crowd_rounds: int
    many: int


FULL_EGRESS = EgressEffort(bulk_bytes=1024 * MIB, rounds=5, requests=300, crowd=1000, crowd_rounds=5, many=MANY_TUNNELS)
QUICK_EGRESS = EgressEffort(bulk_bytes=256 * MIB, rounds=2, requests=100, crowd=300, crowd_rounds=2, many=500)


class Bulk(Struct, frozen=True, kw_only=True):
    """Round by round: seconds for all bytes, and the CPU of whoever relayed them."""

    seconds: list[float]
    cpu_s: list[float]


class Held(Struct, frozen=True, kw_only=True):
    """Without and with open tunnels."""

    before: Footprint
    held: Footprint


class Contest(Struct, frozen=True, kw_only=True):
    """What was measured of one contestant; `absent` says why nothing was."""

    absent: str = ""
    bulk: dict[str, Bulk] = {}
    crowds: dict[int, list[float]] = {}
    """Clients at once → seconds of each round."""
    small: list[float] = []
    """Seconds of each small request on a new connection."""
    held: Held | None = None
    failures: int = 0
    """Runs that failed, most often for lack of the last bytes, and were made again."""


class Many(Struct, frozen=True, kw_only=True):
    """Ours with very many tunnels open: seconds of a new one's bytes alone and beside them, pair by pair, and descriptors."""

    tunnels: int
    stalled: int
    alone_s: list[float]
    beside_s: list[float]
    held: Held
    after: Footprint


class EgressFigures(Struct, frozen=True, kw_only=True):
    """Everything that one run measured of egress."""

    effort: EgressEffort
    contests: dict[str, Contest]
    named: list[float]
    """Ours, small requests by name: with two DNS queries each."""
    many: Many


Progress = Callable[[str], None]


def measure_egress(directory: Path, effort: EgressEffort, progress: Progress) -> EgressFigures:
    """Contestants side by side in one lab, round by round; then each alone with tunnels open."""
    directory.mkdir(exist_ok=True)
    with open_bench_lab(directory / "lab") as lab, contextlib.ExitStack() as stack:
        peers, absent = _open_peers(lab, directory, stack)
        contests = _measure_by_turns(peers, effort, progress)
        for name, peer in peers.items():
            if name == NOTHING:
                continue
            progress(f"egress: {TUNNELS} tunnels through {name}")
            contests[name] = _with_held(contests[name], peer)
        progress(f"egress: {effort.many} tunnels, and one more")
        ours = peers[OURS]
        named = ours.load({"do": "small", "count": effort.requests, "target": list(NAMED)})["each"]
        many = measure_many(ours, effort)
    contests |= {name: Contest(absent=why) for name, why in absent.items()}
    return EgressFigures(effort=effort, contests=contests, named=named, many=many)


@contextlib.contextmanager
def open_bench_lab(directory: Path) -> Iterator[Lab]:
    """The lab with the benchmark's server, and the DNS of the others."""
    with open_lab(directory, servers=False) as lab:
        server = (sys.executable, "-m", "tests.bench.egress_server", *map(str, TARGET))
        names = (sys.executable, "-c", _SERVE_NAMES)
        with lab.running(lab.outside, *server), lab.running(lab.outside, *names):
            yield lab


_SERVE_NAMES = """
import socket
from tests.root.servers import dns
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind((dns.RESOLVER, 53))
    print("ready", flush=True)
    dns.serve_dns(listener)
"""


def _open_peers(lab: Lab, directory: Path, stack: contextlib.ExitStack) -> tuple[dict[str, Peer], dict[str, str]]:
    peers, absent = {}, {}
    openers: dict[str, Callable[[Path], contextlib.AbstractContextManager[Peer]]] = {
        OURS: lambda own: open_ours(lab, own),
        SOCAT: lambda own: open_socat(lab, own),
        SOCAT_BIG: lambda own: open_socat(lab, own, "-b", "262144"),
        ONE_SOCAT: lambda own: open_one_socat(lab, own),
        NOTHING: lambda own: open_nothing(lab, own),
        RUNTIME: lambda own: open_runtime(lab, own),
    }
    for number, (name, opener) in enumerate(openers.items()):
        own = directory / f"peer-{number}"
        own.mkdir()
        try:
            peers[name] = stack.enter_context(opener(own))
        except (NotInstalled, RuntimeError) as error:
            if name == OURS:
                raise
            absent[name] = str(error)
    return peers, absent


class _Contestants:
    """Those that are up. One that fails is tried again; ours may not."""

    def __init__(self, peers: dict[str, Peer]) -> None:
        self._peers = peers
        self.failures = dict.fromkeys(peers, 0)

    def by_turns(self, rounds: int, asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """A B C A B C …, with a moment for what one leaves to do: who, and its answer."""
        for _ in range(rounds):
            for name in self._peers:
                time.sleep(_SETTLE_S)
                yield name, self._load(name, asked)

    def _load(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                return self._peers[name].load(asked)
            except RuntimeError:
                if name == OURS or self.failures[name] >= _FAILURES_LIMIT:
                    raise
                self.failures[name] += 1


def _measure_by_turns(peers: dict[str, Peer], effort: EgressEffort, progress: Progress) -> dict[str, Contest]:
    contestants = _Contestants(peers)
    bulk: dict[str, dict[str, Bulk]] = {name: {} for name in peers}
    for course, (via, do) in COURSES.items():
        progress(f"egress: {effort.rounds} × {effort.bulk_bytes // MIB} MiB through {len(peers)} contestants: {course}")
        for name in peers:
            bulk[name][course] = Bulk(seconds=[], cpu_s=[])
        for name, answer in contestants.by_turns(effort.rounds, {"do": do, "via": via, "bytes": effort.bulk_bytes}):
            bulk[name][course].seconds.append(answer["seconds"])
            bulk[name][course].cpu_s.append(answer["relay_cpu_s"])
    crowds: dict[str, dict[int, list[float]]] = {name: {size: [] for size in CROWDS} for name in peers}
    small: dict[str, list[float]] = {name: [] for name in peers}
    for size in CROWDS:
        progress(f"egress: {effort.crowd_rounds} × {effort.crowd} new connections, {size} at a time")
        asked: dict[str, Any] = {"do": "crowd", "count": effort.crowd, "concurrency": size}
        for name, answer in contestants.by_turns(effort.crowd_rounds, asked):
            crowds[name][size].append(answer["seconds"])
    for name, answer in contestants.by_turns(effort.rounds, {"do": "small", "count": effort.requests}):
        small[name] += answer["each"]
    return {
        name: Contest(bulk=bulk[name], crowds=crowds[name], small=small[name], failures=contestants.failures[name])
        for name in peers
    }


def _with_held(contest: Contest, peer: Peer) -> Contest:
    before = peer.footprint()
    with peer.holding(TUNNELS):
        time.sleep(_SETTLE_S)
        held = peer.footprint()
    return structs.replace(contest, held=Held(before=before, held=held))


def measure_many(peer: Peer, effort: EgressEffort) -> Many:
    """A new tunnel's rate alone and beside very many, of which some have bytes on the way that nobody reads."""
    asked: dict[str, Any] = {"do": "down", "via": "connect", "bytes": effort.bulk_bytes}
    peer.load(asked)
    before = peer.footprint()
    alone = [peer.load(asked)["seconds"] for _ in range(effort.rounds)]
    with peer.holding(effort.many, stalled=STALLED):
        time.sleep(_SETTLE_S)
        held = peer.footprint()
        beside = [peer.load(asked)["seconds"] for _ in range(effort.rounds)]
    deadline = time.monotonic() + _CLOSED_S
    while (after := peer.footprint()).descriptors > before.descriptors and time.monotonic() < deadline:
        time.sleep(_SETTLE_S)
    return Many(
        tunnels=effort.many,
        stalled=STALLED,
        alone_s=alone,
        beside_s=beside,
        held=Held(before=before, held=held),
        after=after,
    )
