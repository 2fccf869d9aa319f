"""The contestants of the egress benchmark: ways for a client without a network to reach a server outside.

    coworkd          client in a session ── coworkd-egress (allowlist, guard, audit) ── server
    socat            client with only lo ── socat ── unix socket ── socat ── server: the least that gets out of a place without a network
    sandbox-runtime  client in its sandbox ── socat ── unix socket ── socat ── its proxy in Node.js ── server
    one socat        client in the guest ── socat ── server: a client that has the guest's own network, and so needs no bridge
    nothing          client in the guest ── server

All run on the guest side of one lab, with one `egress_server` outside and one `egress_load` as client. socat speaks no proxy protocol, so
its client is spared the handshake. What is not installed is left out and said.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from coworkd.client.sync import Client, connect
from tests.bench.guest import ROOT, Memory, read_cpu, read_memory
from tests.bench.others import install_library, need
from tests.root.lab import Lab, Side, open_side
from tests.root.servers import dns

TARGET = (dns.SERVER, 9000)
NAMED = (f"index.{dns.DOMAIN}", 9000)
LOAD = str(ROOT / "tests" / "bench" / "egress_load.py")
PORT = 3128
SESSION, PROFILE = "bench", "bench"
LOAD_TIMEOUT_S = 300
START_S = 20
SETTLE_S = 3
LIMITS = {"connections": 8192, "rate_per_s": 1e6, "burst": 1_000_000, "idle_s": 3600}


class Footprint(Struct, frozen=True, kw_only=True):
    """Processes of a contestant now, their memory, and the descriptors of whoever relays."""

    processes: int
    memory: Memory
    descriptors: int


class Peer:
    """A contestant that is up. `prefix` is an argv that becomes a program at the client's place; `pids` are those that relay."""

    def __init__(
        self, *, prefix: list[str], proxy: tuple[str, int], speaks: bool, pids: Callable[[], list[int]], relay: int
    ) -> None:
        self._prefix = prefix
        self._proxy = proxy
        self._speaks = speaks
        self._pids = pids
        self._relay = relay

    def compose(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`asked` as this contestant's clients have to be told it; one that speaks no proxy protocol is its own target."""
        if self._speaks:
            return {"target": list(TARGET), "via": "connect", "proxy": list(self._proxy), **asked}
        return {**asked, "target": list(self._proxy), "via": "raw"}

    def load(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run the load and give its answer; `relay_cpu_s` is what the contestant's own processes used meanwhile."""
        before = self.cpu_s()
        answer = self._run(asked)
        self._settle()
        return {**answer, "relay_cpu_s": self.cpu_s() - before}

    def _settle(self) -> None:
        """What a process for one connection used counts once it has ended and was waited for."""
        deadline = time.monotonic() + SETTLE_S
        while not self._speaks and self._pids() != _with_children(self._pids()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, asked: dict[str, Any]) -> dict[str, Any]:
        command = [*self._prefix, sys.executable, "-I", LOAD, json.dumps(self.compose(asked))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, cwd=ROOT)
        if done.returncode != 0:
            raise RuntimeError(f"the load failed: {done.stderr.strip()[-500:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @contextlib.contextmanager
    def holding(self, count: int, *, stalled: int = 0) -> Iterator[None]:
        """With so many tunnels open."""
        asked = self.compose({"do": "hold", "count": count, "stalled": stalled})
        command = [*self._prefix, sys.executable, "-I", LOAD, json.dumps(asked)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout is not None
            if child.stdout.readline() != b"held\n":
                raise RuntimeError("the tunnels did not open")
            yield
            child.communicate(timeout=LOAD_TIMEOUT_S)

    def cpu_s(self) -> float:
        used = [read_cpu(pid) for pid in self._pids()]
        return sum(cpu.own_s + cpu.children_s for cpu in used)

    def footprint(self) -> Footprint:
        tree = _with_children(self._pids())
        memories = [_memory(pid) for pid in tree]
        return Footprint(
            processes=len(tree),
            memory=Memory(
                rss_bytes=sum(each.rss_bytes for each in memories), pss_bytes=sum(each.pss_bytes for each in memories)
            ),
            descriptors=len(os.listdir(f"/proc/{self._relay}/fd")),
        )


def _with_children(pids: Iterable[int]) -> list[int]:
    found = set(pids)
    for pid in tuple(found):
        found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return sorted(found)


def _memory(pid: int) -> Memory:
    try:
        return read_memory(pid)
    except (FileNotFoundError, ProcessLookupError):
        return Memory(rss_bytes=0, pss_bytes=0)


# -- coworkd --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_ours(lab: Lab, directory: Path) -> Iterator[Peer]:
    """A session whose policy allows the server, without bounds that the benchmark would meet. Clients are put into its namespace."""
    policies = _write_policies(directory / "policies")
    with (
        lab.running_daemon(directory / "coworkd", "--policies", str(policies), "--log-level", "warning") as daemon,
        connect(daemon.uri, client_name="bench") as client,
    ):
        client.session_ensure(name=SESSION, profile=PROFILE)
        with client.start(SESSION, ["/bin/sleep", "86400"]) as holder:
            namespace = f"/proc/{holder.pid}/ns/net"
            egress = client.egress_status().pid
            pids = [egress, daemon.child.pid, client.info().launcher_pid]
            yield Peer(
                prefix=[sys.executable, "-m", "tests.root.enter", namespace, "-", str(ROOT)],
                proxy=("127.0.0.1", PORT),
                speaks=True,
                pids=lambda: pids,
                relay=egress,
            )
        _forget(client)


def _forget(client: Client) -> None:
    client.session_delete(session=SESSION, force=True)


def _write_policies(directory: Path) -> Path:
    for name in ("profiles", "egress"):
        (directory / name).mkdir(parents=True)
    (directory / "profiles" / f"{PROFILE}.toml").write_text(f'inherits = "default"\n[egress]\nsettings = "{PROFILE}"\n')
    settings = {**compose_settings(), "coworkd": {"limits": LIMITS}}
    (directory / "egress" / f"{PROFILE}.json").write_text(json.dumps(settings))
    return directory


def compose_settings() -> dict[str, Any]:
    """What both ours and sandbox-runtime are told."""
    return {
        "network": {"allowedDomains": [TARGET[0], NAMED[0]], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": ["/tmp"], "denyWrite": []},
    }


# -- socat ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_socat(lab: Lab, directory: Path, *options: str) -> Iterator[Peer]:
    """A socat in a namespace with only lo, and one outside it, joined by a unix socket."""
    need("socat")
    path = directory / "socat.sock"
    outer = f"UNIX-LISTEN:{path},fork,backlog=4096"
    inner = f"TCP4-LISTEN:{PORT},fork,reuseaddr,backlog=4096"
    with (
        open_side() as place,
        _socat(lab.guest, *options, outer, f"TCP4:{TARGET[0]}:{TARGET[1]}") as first,
        _socat(place, *options, inner, f"UNIX-CONNECT:{path}") as second,
    ):
        _wait_until(path.exists)
        _wait_for_listener(place)
        yield Peer(
            prefix=place.entering(ROOT),
            proxy=("127.0.0.1", PORT),
            speaks=False,
            pids=lambda: sorted((first, second)),
            relay=first,
        )


@contextlib.contextmanager
def open_one_socat(lab: Lab, _: Path) -> Iterator[Peer]:
    """One socat in the guest: its clients have the guest's network."""
    need("socat")
    words = (f"TCP4-LISTEN:{PORT},fork,reuseaddr,backlog=4096", f"TCP4:{TARGET[0]}:{TARGET[1]}")
    with _socat(lab.guest, *words) as pid:
        _wait_for_listener(lab.guest)
        yield Peer(
            prefix=lab.guest.entering(ROOT), proxy=("127.0.0.1", PORT), speaks=False, pids=lambda: [pid], relay=pid
        )


@contextlib.contextmanager
def open_nothing(lab: Lab, _: Path) -> Iterator[Peer]:
    """The client's own connections: what client, server and kernel can do here."""
    yield Peer(prefix=lab.guest.entering(ROOT), proxy=TARGET, speaks=False, pids=list, relay=os.getpid())


@contextlib.contextmanager
def _socat(side: Side, *words: str) -> Iterator[int]:
    with subprocess.Popen([*side.entering(ROOT), "socat", *words], stdin=subprocess.DEVNULL, cwd=ROOT) as child:
        try:
            yield child.pid
        finally:
            for each in psutil.Process(child.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            child.kill()


def _wait_for_listener(side: Side) -> None:
    _wait_until(lambda: f":{PORT:04X}" in side.run("cat", "/proc/net/tcp"))


def _wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_S
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError("it does not come up")
        time.sleep(0.02)


# -- sandbox-runtime ------------------------------------------------------------------------------------------------


class RuntimePeer(Peer):
    """Clients are commands in its sandbox: their own CPU is what they say of themselves, and is taken off."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        super().__init__(
            prefix=[], proxy=("", 0), speaks=True, pids=lambda: _with_children([child.pid]), relay=child.pid
        )
        self._child = child

    def compose(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"target": list(TARGET), "via": "connect", **asked, "proxy": None}

    def load(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer = super().load(asked)
        return {**answer, "relay_cpu_s": max(0.0, answer["relay_cpu_s"] - answer["cpu_s"])}

    def _run(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._begin(asked)
        answer: dict[str, Any] = json.loads(self._next("line"))
        self._next("status")
        return answer

    @contextlib.contextmanager
    def holding(self, count: int, *, stalled: int = 0) -> Iterator[None]:
        self._begin({"do": "hold", "count": count, "stalled": stalled})
        if self._next("line") != "held":
            raise RuntimeError("the tunnels did not open")
        yield
        self._say("end")
        self._next("line")
        self._next("status")

    def _begin(self, asked: dict[str, Any]) -> None:
        python = "/usr/bin/python3"
        self._say("run " + shlex.join([python, "-I", LOAD, json.dumps(self.compose(asked))]))

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line.encode() + b"\n")
        self._child.stdin.flush()

    def _next(self, word: str) -> str:
        assert self._child.stdout is not None
        said = self._child.stdout.readline().decode().rstrip("\n")
        kind, _, rest = said.partition(" ")
        if kind != word or (word == "status" and rest != "0"):
            raise RuntimeError(f"sandbox-runtime: {said or 'it ended'}")
        return rest


@contextlib.contextmanager
def open_runtime(lab: Lab, directory: Path) -> Iterator[Peer]:
    """sandbox-runtime's library, warm, with its own walls and proxies."""
    library = install_library()
    settings = directory / "srt-settings.json"
    settings.write_text(json.dumps(compose_settings()))
    script = str(ROOT / "tests" / "bench" / "egress_runtime.mjs")
    command = [*lab.guest.entering(directory), "node", script, str(library), str(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as child:
        try:
            assert child.stdout is not None
            assert child.stdin is not None
            if child.stdout.readline() != b"ready\n":
                raise RuntimeError("sandbox-runtime does not start")
            yield RuntimePeer(child)
            child.stdin.close()
            child.wait(START_S)
        finally:
            if child.poll() is None:
                for each in psutil.Process(child.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
                child.kill()
