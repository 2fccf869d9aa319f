"""`python -m tests.bench.vsock`: what the vsock device costs, beside a plain relay of two unix sockets, in the same run.

The device is the real program; the guest is the tests' own driver in this process, so bytes a second are those of a driver in Python,
and CPU per GiB is the device's alone (of the relay: the relay's). Needs neither root nor a guest.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from host_stub.vsock import packet
from host_stub.vsock.messages import Ask
from tests.bench.figures import paired_ratio, spread
from tests.bench.tables import MIB, ratio, table
from tests.unit.host_stub.vsock.driver import Guest, Monitor

BULK_BYTES, ROUNDS, CONNECTIONS, TRIPS = 128 * MIB, 5, 500, 1000
_QUEUE_SIZE, _MEMORY_BYTES, _RX_BYTES, _TX_BYTES, _ROOM = 128, 64 * MIB, 4096 + packet.SIZE, 64 * 1024, 256 * 1024
_PORT, _TIMEOUT_S = 5005, 20.0
_TICKS = os.sysconf("SC_CLK_TCK")

_SOURCE = "import os,sys\nz=bytes(1<<18)\nn=int(sys.argv[1])\nwhile n>0: n-=os.write(1,z[:n])"
_SINK = "import os,sys\nwhile os.read(0,1<<18): pass"
_RELAY = (
    "import socket,sys\na,b=(socket.socket(fileno=int(n)) for n in sys.argv[1:3])\nv=bytearray(1<<18)\nm=memoryview(v)\n"
    "while n:=a.recv_into(v): b.sendall(m[:n])"
)


class Course(Struct, frozen=True, kw_only=True):
    """Of one stretch of bytes: how long, and the CPU of what they went through."""

    seconds: float
    cpu_s: float


class Joined:
    """The device with a driver, which has to be turned by `pump`."""

    def __init__(self, place: Path) -> None:
        self.hybrid = place / "vsock"
        argv = [sys.executable, "-m", "host_stub.vsock", "--socket", str(place / "monitor"), "--cid", "7"]
        self.device = subprocess.Popen(
            [*argv, "--hybrid", str(self.hybrid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.device.stdout is not None
        assert self.device.stdout.readline() == b"ready\n"
        self.guest = Guest(queue_size=_QUEUE_SIZE, event_idx=True, memory_bytes=_MEMORY_BYTES)
        self.monitor = Monitor(place / "monitor")
        self.monitor.start(self.guest)
        # What was said is done once what comes after it is answered.
        self.monitor.ask(Ask.GET_FEATURES)
        self.monitor.socket.settimeout(_TIMEOUT_S)
        assert self.monitor.reply() is not None
        self.guest.refill(size=_RX_BYTES)

    def close(self) -> None:
        self.monitor.close()
        self.device.terminate()
        self.device.wait()
        assert self.device.stdout is not None
        self.device.stdout.close()
        self.guest.close()

    def pump(self) -> list[packet.Header]:
        """Wait for the device, take what came, give its buffers back; the headers."""
        guest = self.guest
        rx = guest.rx
        headers: list[packet.Header] = []
        rx.word(rx.available + 4 + 2 * rx.size, rx.seen)
        if rx.seen == rx.word(rx.used + 2):
            ready, _, _ = select.select([rx.call_fd], [], [], _TIMEOUT_S)
            if not ready:
                raise TimeoutError("the device has nothing to say")
            rx.called()
        for pieces, _ in rx.collect():
            at = pieces[0][0]
            parsed = packet.parse_header([guest.memory[at : at + packet.SIZE]])
            assert parsed is not None
            headers.append(parsed[0])
        guest.refill(size=_RX_BYTES)
        return headers

    def connect(self) -> tuple[socket.socket, int]:
        """A client of the guest's port; its socket and the host's port."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(_TIMEOUT_S)
        client.connect(str(self.hybrid))
        client.sendall(b"CONNECT %d\n" % _PORT)
        request = self._next_request()
        self.guest.send(_PORT, request.src_port, packet.RESPONSE, buf_alloc=_ROOM)
        assert client.recv(64).startswith(b"OK ")
        client.setblocking(True)
        return client, request.src_port

    def leave(self, client: socket.socket, port: int) -> None:
        """Close it from the guest, and wait until it is closed."""
        self.guest.send(_PORT, port, packet.RST)
        while client.recv(1 << 16):
            pass
        client.close()

    def _next_request(self) -> packet.Header:
        while True:
            for header in self.pump():
                if header.op == packet.REQUEST:
                    return header


def cpu_s(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def measure_to_guest(joined: Joined) -> Course:
    """Bytes of a process on the host into the driver's buffers."""
    client, port = joined.connect()
    began, cpu = time.perf_counter(), cpu_s(joined.device.pid)
    source = subprocess.Popen([sys.executable, "-c", _SOURCE, str(BULK_BYTES)], stdout=client.fileno())
    got = told = 0
    while got < BULK_BYTES:
        got += sum(header.length for header in joined.pump())
        if got - told >= _ROOM // 4:
            told = got
            joined.guest.send(_PORT, port, packet.CREDIT_UPDATE, buf_alloc=_ROOM, fwd_cnt=got)
    course = Course(seconds=time.perf_counter() - began, cpu_s=cpu_s(joined.device.pid) - cpu)
    source.wait()
    joined.leave(client, port)
    return course


def measure_to_host(joined: Joined) -> Course:
    """Bytes of the driver's to a process on the host."""
    client, port = joined.connect()
    began, cpu = time.perf_counter(), cpu_s(joined.device.pid)
    sink = subprocess.Popen([sys.executable, "-c", _SINK], stdin=client.fileno())
    data = bytes(_TX_BYTES)
    sent = passed_on = 0
    while passed_on < BULK_BYTES:
        while sent < BULK_BYTES and sent + len(data) - passed_on <= _ROOM:
            joined.guest.send(_PORT, port, packet.RW, data, buf_alloc=_ROOM)
            sent += len(data)
        if sent == BULK_BYTES:
            joined.guest.send(_PORT, port, packet.CREDIT_REQUEST, buf_alloc=_ROOM)
        passed_on = max([passed_on, *(header.fwd_cnt for header in joined.pump())])
    course = Course(seconds=time.perf_counter() - began, cpu_s=cpu_s(joined.device.pid) - cpu)
    joined.guest.send(_PORT, port, packet.RST)
    client.close()
    sink.wait()
    return course


def measure_relay() -> Course:
    """The same bytes from a process to a process, through a relay that does nothing else."""
    near, ours = socket.socketpair()
    theirs, far = socket.socketpair()
    fds = (ours.fileno(), theirs.fileno())
    began = time.perf_counter()
    relay = subprocess.Popen([sys.executable, "-c", _RELAY, str(fds[0]), str(fds[1])], pass_fds=fds)
    source = subprocess.Popen([sys.executable, "-c", _SOURCE, str(BULK_BYTES)], stdout=near.fileno())
    for each in (near, ours, theirs):
        each.close()
    got = 0
    while data := far.recv(1 << 18):
        got += len(data)
    assert got == BULK_BYTES
    seconds = time.perf_counter() - began
    source.wait()
    alone = os.times()
    relay.wait()
    after = os.times()
    far.close()
    return Course(
        seconds=seconds,
        cpu_s=after.children_user + after.children_system - alone.children_user - alone.children_system,
    )


def measure_round_trips(joined: Joined) -> list[float]:
    """A byte to the driver and one back, in microseconds."""
    client, port = joined.connect()
    took = []
    for _ in range(TRIPS):
        began = time.perf_counter()
        client.send(b"?")
        while not any(header.op == packet.RW for header in joined.pump()):
            pass
        joined.guest.send(_PORT, port, packet.RW, b"!", buf_alloc=_ROOM, fwd_cnt=0)
        client.recv(1)
        took.append((time.perf_counter() - began) * 1e6)
    joined.leave(client, port)
    return took


def measure_connections(joined: Joined) -> float:
    """Opened and closed, a second."""
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        joined.leave(*joined.connect())
    return CONNECTIONS / (time.perf_counter() - began)


@contextlib.contextmanager
def open_joined() -> Iterator[Joined]:
    """The device and its driver."""
    with tempfile.TemporaryDirectory(prefix="coworkd-bench-") as name:
        joined = Joined(Path(name))
        try:
            yield joined
        finally:
            joined.close()


def main() -> int:
    """Measure, and print the tables."""
    rounds: dict[str, list[Course]] = {"host to guest": [], "guest to host": [], "a plain relay": []}
    with open_joined() as joined:
        for _ in range(ROUNDS):
            rounds["host to guest"].append(measure_to_guest(joined))
            rounds["guest to host"].append(measure_to_host(joined))
            rounds["a plain relay"].append(measure_relay())
        trips, rate = spread(measure_round_trips(joined)), measure_connections(joined)
    gib = BULK_BYTES / (1 << 30)
    relayed = [course.seconds for course in rounds["a plain relay"]]
    rows = [
        (
            name,
            f"{BULK_BYTES / MIB / spread([course.seconds for course in courses]).median:.0f} MiB/s",
            f"{spread([course.cpu_s for course in courses]).median / gib:.2f} s",
            ratio(paired_ratio([course.seconds for course in courses], relayed)),
        )
        for name, courses in rounds.items()
    ]
    print(table(("", "bytes a second", "CPU per GiB", "time / relay's"), rows))
    print(
        f"\nround trip {trips.median:.0f} µs ({trips.lower:.0f} – {trips.upper:.0f}), {rate:.0f} connections a second"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
