"""What a command costs: ours and raw bubblewrap by turns, alone and sixteen at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import trio
from msgspec import Struct

from coworkd.client import aio
from coworkd.client.sync import Client
from coworkd.model.calls import ProcessRan
from coworkd.model.event import Event
from coworkd.model.names import parse_session_name
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.process import ProcessSpec
from coworkd.model.session import SessionInfo, SessionView
from coworkd.sandbox.bwrap_plan import plan_command
from coworkd.sandbox.compose import compose
from coworkd.services.policies import PolicyStore
from coworkd.system.guest import read_bwrap_features, read_layout
from tests.bench.guest import ROOT, SESSION, Guest
from tests.bench.raw_peer import RawPeer, Setup, open_raw_peer

COMMAND = "/bin/true"
WARM_UP = 3
SETTLE_S = 0.08
"""Between two measurements, so that what one leaves to do (a record, a reaping, the next sandbox) is not done in the other's time."""

Contestant = Callable[[], float]
"""Runs one command and returns its seconds."""


class Pairs(Struct, frozen=True, kw_only=True):
    """Seconds, pair by pair."""

    base_s: list[float]
    other_s: list[float]


class Crowd(Struct, frozen=True, kw_only=True):
    """Seconds for `count` commands, round by round."""

    pairs: Pairs
    count: int
    concurrency: int


def measure_pairs(base: Contestant, other: Contestant, *, pairs: int) -> Pairs:
    """A B A B …"""
    for _ in range(WARM_UP):
        base()
        other()
    measured = Pairs(base_s=[], other_s=[])
    for _ in range(pairs):
        for contestant, figures in ((base, measured.base_s), (other, measured.other_s)):
            time.sleep(SETTLE_S)
            figures.append(contestant())
    return measured


def run_once(client: Client) -> float:
    """Seconds of one `process.run`, from the call to its answer."""
    began = time.perf_counter()
    ran = client.run(SESSION, [COMMAND])
    took = time.perf_counter() - began
    _check(ran)
    return took


def _check(ran: ProcessRan) -> None:
    if ran.exit.code != 0:
        raise RuntimeError(f"{COMMAND} ended with {ran.exit}")


def first_byte(client: Client) -> float:
    """Seconds from `process.start` to the first byte of output; the rest is not timed."""
    began = time.perf_counter()
    with client.start(SESSION, ["/bin/echo", "first"]) as process:
        piece = process.read()
        took = time.perf_counter() - began
        if piece is None or piece.data != b"first\n":
            raise RuntimeError(f"/bin/echo said {piece}")
        for _ in process:
            pass
    return took


def measure_crowd(guest: Guest, peer: RawPeer, *, rounds: int, count: int, concurrency: int) -> Crowd:
    measured = Pairs(base_s=[], other_s=[])
    for _ in range(rounds):
        measured.base_s.append(peer.many(count, concurrency))
        measured.other_s.append(trio.run(_many, guest.uri, count, concurrency))
    return Crowd(pairs=measured, count=count, concurrency=concurrency)


async def _many(uri: str, count: int, concurrency: int) -> float:
    left = iter(range(count))

    async def work(client: aio.AsyncClient) -> None:
        for _ in left:
            _check(await client.run(SESSION, [COMMAND]))

    async with await aio.connect(uri) as client:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(concurrency):
                nursery.start_soon(work, client)
        return time.perf_counter() - began


# -- the peer's arguments -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_session_peer(guest: Guest, client: Client, session: SessionInfo) -> Iterator[RawPeer]:
    """Raw bubblewrap in the namespaces of `session`, with just the options, variables and filters that coworkd gives it."""
    policy = trio.run(_read_policy, guest)
    layout, features = read_layout(), read_bwrap_features()
    spec = ProcessSpec(
        process="peer",
        session=session.name,
        argv=(COMMAND.encode(),),
        env=_read_environment(client, session),
        cwd=None,
        stdin=False,
        tty=None,
    )
    spawn = compose(spec, _view(session), policy, layout=layout, features=features)
    with client.start(session.name, ["/bin/sleep", "3600"]) as holder:
        setup = Setup(
            monitor_pid=_parent(_parent(holder.pid)),
            uid=session.uid,
            gid=session.gid,
            bubblewrap=features.path,
            bwrap_args=(*spawn.bwrap_args, *plan_command(spawn.cwd, spawn.environment)),
            filters=(policy.base_filter.bpf, policy.admin_filter.bpf),
            argv=(COMMAND,),
        )
        with open_raw_peer(setup) as peer:
            yield peer


def _read_environment(client: Client, session: SessionInfo) -> dict[str, str]:
    """What a command of the session finds set, the variables of its proxies and certificates included."""
    words = client.run(session.name, ["/usr/bin/env", "-0"]).stdout.decode().split("\0")
    variables = dict(word.split("=", 1) for word in words if word)
    variables.pop("PWD", None)  # bubblewrap's own, by --chdir
    return variables


def _view(session: SessionInfo) -> SessionView:
    return SessionView(
        name=parse_session_name(session.name),
        uid=session.uid,
        gid=session.gid,
        home=os.fsencode(session.home),
        profile=session.profile,
        limits=LimitsRequest(),
        env={},
        folders=session.folders,
    )


def _parent(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no parent")


class _NoRecord:
    """The audit and event ports of a policy store that only reads."""

    async def record(self, kind: str, fields: Mapping[str, Any], /) -> None:
        """Not recorded: the daemon that is measured keeps its own log."""

    def publish(self, name: str, params: Mapping[str, Any], /) -> Event:
        return Event(seq=0, at=0.0, name=name, params=dict(params))


async def _read_policy(guest: Guest) -> EffectivePolicy:
    store = PolicyStore(
        directories=[str(ROOT / "policies")],
        presets_file=lambda: None,
        cache_dir=guest.cache_dir,
        audit=_NoRecord(),
        events=_NoRecord(),
    )
    await store.load()
    return await store.effective(None, LimitsRequest())
