"""A coworkd-egress of one's own behind its real walls, driven word by word from inside a lab's guest side.

`python -m tests.root.egressd_talk SCENARIO` plays supervisor and clients, and prints what it found as one JSON object: see the functions
below. The servers are the lab's (`tests/root/servers`).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from coworkd.cli.egress_start import egress_command
from coworkd.egressd.tcp import reset
from coworkd.model import egress as words
from coworkd.seccomp import compile_program, host_arch
from coworkd.seccomp.egress_filter import load_egress_filter
from coworkd.system import packet
from tests.root.servers import dns
from tests.root.servers.plain import COUNTING, ECHO, ENDLESS, GREETING, RESETTING, SILENT

UID = 61_999
WAIT_S = 60.0
MIB = 1024 * 1024
_ETH_P_ALL, _ETH_P_IP = 3, 0x0800
_KEPT: list[socket.socket] = []
LIMITS = words.EgressLimits(connections=4000, rate_per_s=100_000, burst=100_000)


class Egressd:
    """The program and its supervisor's conversation, kept by a thread that acknowledges what is told while `records`."""

    def __init__(self, directory: str, *options: str) -> None:
        self.path = os.path.join(directory, "egress.sock")
        command = egress_command(["--socket", self.path, "--uid", str(UID), "--gid", str(UID), *options])
        self.process = subprocess.Popen(command)
        self.events: list[words.EgressEvent] = []
        self.records = True
        self._answers: dict[int, words.Answer] = {}
        self._changed = threading.Condition()
        self._last_id = 0
        self._link: socket.socket | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self) -> words.Begun:
        """Connect and begin, with the real filter."""
        wait_until(lambda: os.path.exists(self.path), "its socket")
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.connect(self.path)
        threading.Thread(target=self._listen, args=(self._link,), daemon=True).start()
        bpf = compile_program(load_egress_filter(host_arch()), cache_dir=None).bpf
        begun = self.ask(words.Begin(id=0, version="test", filter_bpf=bpf, host_uri=""))
        assert isinstance(begun, words.Begun), begun
        return begun

    def leave(self) -> None:
        """The supervisor is gone."""
        assert self._link is not None
        self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        self._link = None

    def ask(self, request: words.Request, *fds: int) -> words.Answer:
        with self._changed:
            self._last_id += 1
            number = self._last_id
        data, ancillary, memfd = packet.pack(msgspec.msgpack.encode(msgspec.structs.replace(request, id=number)), fds)
        assert self._link is not None
        self._link.sendmsg(data, ancillary)
        if memfd >= 0:
            os.close(memfd)
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._answers, WAIT_S), request
            return self._answers.pop(number)

    def serve(self, *allowed: str, session: str = "s") -> socket.socket:
        """A listening socket that is served; the caller's copy."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        settings = words.EgressSettings(source="test.json", allowed=allowed or (f"*.{dns.DOMAIN}", dns.SERVER))
        request = words.Serve(id=0, session=session, egress=words.SessionEgress(settings=(settings,), limits=LIMITS))
        answer = self.ask(request, listener.fileno())
        assert isinstance(answer, words.Done), answer
        return listener

    def _listen(self, link: socket.socket) -> None:
        while True:
            try:
                data, ancillary, flags, _ = link.recvmsg(*packet.RECEIVE_ARGUMENTS)
                message, _ = packet.unpack(data, ancillary, flags)
                if not message:
                    return
                reply = msgspec.msgpack.decode(message, type=words.Reply)
                with self._changed:
                    if isinstance(reply, words.Told):
                        self.events += reply.events
                        if self.records:
                            link.sendall(msgspec.msgpack.encode(words.Recorded(through=reply.events[-1].seq)))
                    else:
                        self._answers[reply.id] = reply
                    self._changed.notify_all()
            except OSError:
                return

    def record(self) -> None:
        """Everything that was told is durable, and what will be."""
        self.records = True
        assert self._link is not None
        self._link.sendall(msgspec.msgpack.encode(words.Recorded(through=self.events[-1].seq)))

    # -- what it holds

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Its private memory, in bytes: what it costs."""
        with open(f"/proc/{self.pid}/smaps_rollup") as rollup:
            return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_"))

    def cpu_s(self) -> float:
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(*options: str) -> Iterator[Egressd]:
    with tempfile.TemporaryDirectory() as directory:
        egressd = Egressd(directory, *options)
        try:
            yield egressd
        finally:
            egressd.close()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to {what}"
        time.sleep(0.005)


def connect(listener: socket.socket, host: str, port: int) -> tuple[socket.socket, bytes]:
    """A connection through the proxy, and the head of the answer."""
    client = socket.create_connection(listener.getsockname(), timeout=WAIT_S)
    client.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(1)
        if not piece:
            break
        head += piece
    return client, head


def tunnel(listener: socket.socket, port: int, host: str = dns.SERVER) -> socket.socket:
    client, head = connect(listener, host, port)
    assert head.startswith(b"HTTP/1.1 200 "), head
    return client


def download(egressd: Egressd, listener: socket.socket) -> dict[str, float]:
    """A gibibyte through a new tunnel, from a server that never stops: bytes a second, and what it cost coworkd-egress."""
    with tunnel(listener, ENDLESS) as client:
        buffer = bytearray(MIB)
        started, cpu_s, got = time.monotonic(), egressd.cpu_s(), 0
        while got < 1024 * MIB:
            got += client.recv_into(buffer)
        return {"rate": got / (time.monotonic() - started), "cpu_s": egressd.cpu_s() - cpu_s}


# -- scenarios ------------------------------------------------------------------------------------------------------


def walls() -> dict[str, Any]:
    """Who it is once it serves."""
    with running() as egressd:
        begun = egressd.begin()
        listener = egressd.serve()
        tunnel(listener, ECHO, f"index.{dns.DOMAIN}").close()
        with open(f"/proc/{egressd.pid}/status") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        names = ("Name", "Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")
        return {"degraded": begun.degraded, **{name: fields[name].split() for name in names}}


def reach() -> dict[str, Any]:
    """What is answered for each name of the lab's zone; literals as well."""
    with running() as egressd:
        egressd.begin()
        listener = egressd.serve(f"*.{dns.DOMAIN}", dns.SERVER, f"[{dns.SERVER6}]", "127.0.0.1", dns.GUEST)
        found = {}
        names = [*dns.GOOD, *dns.BAD, "missing"]
        for host in (*(f"{name}.{dns.DOMAIN}" for name in names), dns.SERVER, f"[{dns.SERVER6}]", "127.1", dns.GUEST):
            client, head = connect(listener, host, ECHO)
            client.close()
            found[host] = int(head.split()[1])
        return found


def many() -> dict[str, Any]:
    """Two thousand tunnels at once, a new one beside them, and what is left when they are gone."""
    with running() as egressd:
        egressd.begin()
        listener = egressd.serve()
        alone = download(egressd, listener)
        wait_until(lambda: counts(egressd).connections == 0, "no connection")
        descriptors, memory, threads = egressd.descriptors(), egressd.memory(), egressd.threads()
        clients = [tunnel(listener, SILENT) for _ in range(200)]
        memory_200 = egressd.memory() - memory
        children = [pid for pid in os.listdir("/proc") if pid.isdigit() and parent_of(pid) == egressd.pid]
        clients += [tunnel(listener, SILENT) for _ in range(1800)]
        memory_2000 = egressd.memory() - memory
        beside = download(egressd, listener)
        before_s = egressd.cpu_s()
        time.sleep(1)
        idle_s = egressd.cpu_s() - before_s
        for client in clients:
            client.close()
        wait_until(lambda: counts(egressd).connections == 0, "no connection")
        return {
            "alone": alone,
            "beside": beside,
            "memory_200": memory_200,
            "memory_2000": memory_2000,
            "children": len(children),
            "threads": egressd.threads() - threads,
            "idle_s": idle_s,
            "descriptors_left": egressd.descriptors() - descriptors,
        }


def stalled() -> dict[str, Any]:
    """A hundred readers that never read, two hundred writers to one who never reads, and a new tunnel beside them.

    All buffers of all ends are TCP memory of this one machine, and past net.ipv4.tcp_mem everything slows down: hence no more readers than
    that, and Linux's own bounds for this namespace, whatever the machine has.
    """
    for name in ("tcp_rmem", "tcp_wmem"):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as sysctl:
            sysctl.write("4096 131072 6291456")
    with running() as egressd:
        egressd.begin()
        listener = egressd.serve()
        alone = download(egressd, listener)
        readers = [tunnel(listener, ENDLESS) for _ in range(100)]
        writers = [tunnel(listener, SILENT) for _ in range(200)]
        for client in writers:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(MIB))
        settle(egressd)
        before_s = egressd.cpu_s()
        time.sleep(1)
        idle_s = egressd.cpu_s() - before_s
        beside = download(egressd, listener)
        descriptors = egressd.descriptors()
        for client in (*readers, *writers):
            reset(client)
            client.close()
        wait_until(lambda: counts(egressd).connections == 0, "no connection")
        return {
            "alone": alone,
            "beside": beside,
            "idle_s": idle_s,
            "descriptors": descriptors,
        }


def settle(egressd: Egressd) -> None:
    """Wait until nothing flows."""
    while True:
        before_s = egressd.cpu_s()
        time.sleep(0.3)
        if egressd.cpu_s() - before_s < 0.02:
            return


def away() -> dict[str, Any]:
    """The supervisor goes and comes back; then the program is ended."""
    with running("--linger", "60") as egressd:
        egressd.begin()
        listener = egressd.serve()
        old = tunnel(listener, ECHO)
        egressd.leave()
        old.sendall(b"flows")
        flows = old.recv(100)
        late = socket.create_connection(listener.getsockname(), timeout=WAIT_S)
        late.sendall(f"CONNECT {dns.SERVER}:{ECHO} HTTP/1.1\r\nHost: {dns.SERVER}:{ECHO}\r\n\r\n".encode())
        waited = not select.select([late], [], [], 0.5)[0]
        begun = egressd.begin()
        answer = late.recv(12)
        os.kill(egressd.pid, signal.SIGTERM)
        status = egressd.process.wait(WAIT_S)
        return {
            "flows": flows.decode(),
            "waited": waited,
            "sessions": begun.sessions,
            "answer": answer.decode(),
            "status": status,
            "kinds": [event.kind for event in egressd.events],
        }


_LAST_WORDS = (b"220 ready\r\n", b"secret", b"secret", b"HTTP/1.1 502 ", b"HTTP/1.1 200 ")
"""What comes to each client of `unrecorded` in the end."""


def unrecorded() -> dict[str, Any]:
    """A supervisor that never says that anything is durable, and then does: what is on the wire and at the clients, before and after."""
    with running() as egressd, socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as wire:
        wire.bind(("guest0", _ETH_P_ALL))
        wire.setblocking(False)
        egressd.begin()
        egressd.records = False
        inspection = words.Inspection(domains=(f"four.{dns.DOMAIN}",))
        settings = words.EgressSettings(source="test.json", allowed=(f"*.{dns.DOMAIN}",), inspect=inspection)
        clients = [socket.create_connection(_serve_new(egressd, settings).getsockname()) for _ in range(5)]
        index, inspected = f"temporary.{dns.DOMAIN}", f"four.{dns.DOMAIN}"
        for client, said in zip(
            clients,
            (
                f"CONNECT {index}:{GREETING} HTTP/1.1\r\nHost: {index}\r\n\r\nsecret",
                f"CONNECT {index}:{ECHO} HTTP/1.1\r\nHost: {index}\r\n\r\nsecret",
                f"\x05\x01\0\x05\x01\0\x03{chr(len(index))}{index}\0{chr(ECHO)}secret",
                f"POST http://{index}:{ECHO}/secret HTTP/1.1\r\nHost: {index}:{ECHO}\r\nContent-Length: 6\r\n\r\nsecret",
                f"CONNECT {inspected}:{ECHO} HTTP/1.1\r\nHost: {inspected}\r\n\r\n\x16\x03\x01secret",
            ),
            strict=True,
        ):
            client.sendall(said.encode("latin-1"))
        wait_until(lambda: len([event for event in egressd.events if event.kind == "open"]) == len(clients), "opens")
        time.sleep(1)
        before, before_got = _payloads(wire), [_got(client) for client in clients]
        egressd.record()
        after = bytearray()

        def have_left() -> bool:
            after.extend(b"".join(_payloads(wire)))
            return after.count(b"secret") >= 4

        wait_until(have_left, "bytes on the wire")
        after_got = [bytearray() for _ in clients]

        def have_come() -> bool:
            for client, got in zip(clients, after_got, strict=True):
                got.extend(_got(client))
            return all(last in got for got, last in zip(after_got, _LAST_WORDS, strict=True))

        wait_until(have_come, "answers at the clients")
        return {
            "wire_before": [payload.decode("latin-1") for payload in before],
            "got_before": [got.decode("latin-1") for got in before_got],
            "got_after": [got.decode("latin-1") for got in after_got],
        }


def _serve_new(egressd: Egressd, settings: words.EgressSettings) -> socket.socket:
    """A session of its own on a listener that stays open."""
    listener = socket.create_server(("127.0.0.1", 0))
    egress = words.SessionEgress(settings=(settings,), limits=LIMITS)
    egressd.ask(words.Serve(id=0, session=f"s{listener.fileno()}", egress=egress), listener.fileno())
    _KEPT.append(listener)
    return listener


def _payloads(wire: socket.socket) -> list[bytes]:
    """What the TCP segments of IPv4 that have left since the last time carry, those that carry something."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            datagram, (_, protocol, kind, *_) = wire.recvfrom(65536)
            if (protocol, kind) == (_ETH_P_IP, socket.PACKET_OUTGOING) and datagram[9] == socket.IPPROTO_TCP:
                segment = datagram[4 * (datagram[0] & 15) : int.from_bytes(datagram[2:4], "big")]
                payload = segment[4 * (segment[12] >> 4) :]
                found += [payload] if payload else []
    return found


def _got(client: socket.socket) -> bytes:
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return client.recv(65536)
    return b""


def killed() -> dict[str, Any]:
    """It is killed; another serves on the very same listener."""
    with running() as first:
        first.begin()
        listener = first.serve()
        client = tunnel(listener, ECHO)
        first.process.kill()
        first.process.wait()
        client.settimeout(WAIT_S)
        try:
            end = client.recv(1).decode()
        except ConnectionResetError:
            end = "reset"
    waiting = socket.create_connection(listener.getsockname(), timeout=WAIT_S)
    waiting.sendall(f"CONNECT {dns.SERVER}:{ECHO} HTTP/1.1\r\nHost: {dns.SERVER}:{ECHO}\r\n\r\n".encode())
    with running() as second:
        second.begin()
        settings = words.EgressSettings(source="test.json", allowed=(dns.SERVER,))
        second.ask(words.Serve(id=0, session="s", egress=words.SessionEgress(settings=(settings,))), listener.fileno())
        return {"end": end, "answer": waiting.recv(12).decode()}


def behaviour() -> dict[str, Any]:
    """Half-closes, resets and amounts, through real sockets."""
    with running() as egressd:
        egressd.begin()
        listener = egressd.serve()
        counting = tunnel(listener, COUNTING)
        data = bytes(8 * MIB)
        counting.sendall(data)
        counting.shutdown(socket.SHUT_WR)
        counted = int(counting.makefile().read())
        resetting = tunnel(listener, RESETTING)
        resetting.sendall(b"x")
        got = b""
        try:
            while piece := resetting.recv(100):
                got += piece
            end = "eof"
        except ConnectionResetError:
            end = "reset"
        wait_until(lambda: counts(egressd).connections == 0, "no connection")

        def closes() -> list[words.EgressEvent]:
            return [event for event in egressd.events if event.kind == "close"]

        wait_until(lambda: len(closes()) == 2, "both ends told")
        closed = closes()
        return {
            "counted": counted,
            "reset": end,
            "sent_bytes": closed[0].sent_bytes,
            "address": closed[0].address,
            "reasons": [event.reason for event in closed],
        }


def counts(egressd: Egressd) -> words.Counts:
    answer = egressd.ask(words.Count(id=0))
    assert isinstance(answer, words.Counts)
    return answer


def parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


SCENARIOS = {
    scenario.__name__: scenario for scenario in (walls, reach, many, stalled, away, unrecorded, killed, behaviour)
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(json.dumps(SCENARIOS[sys.argv[1]]()))
