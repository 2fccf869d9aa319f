"""The least that a start can cost where a client, a supervisor and a launcher are three Python programs: they do nothing here but
what has to be done, without a check, a loop of tasks, or a word that anybody reads.

    client ─▶ supervisor ─▶ launcher ─▶ warm: a shim that waits in bubblewrap; cold: bubblewrap, by posix_spawn(3)
                  │ a line of a log, fdatasync(2), and the gate opens: the shim or bubblewrap executes /bin/true
    client ◀─ supervisor ◀─ launcher ◀─ bubblewrap and its init have gone

Run alone, as root: `python -m tests.bench.start_floor`. Beside it raw bubblewrap, by turns, as in `tests.bench.starts`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import structs

from coworkd.system import prctl
from tests.bench.figures import paired_ratio, spread
from tests.bench.guest import SESSION, open_guest, temporary_directory
from tests.bench.raw_peer import RawPeer, Run, Setup, become
from tests.bench.spawning import COMMAND, Pairs, open_session_peer
from tests.bench.tables import ratio, table

PAIRS = 60
SETTLE_S = 0.03
REQUEST, ORDER, RECORD, END = bytes(300), bytes(1800), b"r" * 900 + b"\n", bytes(400)
"""About as long as ours."""
_LINK_FD = _GATE_FD = 50
_SHIM = f"""
import posix, _socket
link = _socket.socket(fileno={_LINK_FD})
link.send(b"ready")
command, ancillary, _, _ = link.recvmsg(4096, 256)
data = ancillary[0][2]
fds = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
for number in range(3):
    posix.dup2(fds[number], number)
posix.read(fds[3], 1)
posix.execve(command, [command], {{}})
"""


Launcher = Callable[[socket.socket, Setup], None]


def play_warm_launcher(link: socket.socket, setup: Setup) -> None:
    """Have a shim wait, hand it the command and the gate, and tell when bubblewrap and its init have gone; until `link` ends."""
    run = Run(structs.replace(setup, argv=("/usr/bin/python3", "-I", "-S", "-c", _SHIM)))
    null = os.open("/dev/null", os.O_RDWR)
    gc.freeze()
    while True:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.dup2(theirs.fileno(), _LINK_FD, inheritable=True)
        theirs.close()
        fds = run.prepare()
        monitor_pid = run.spawn(fds)
        os.close(_LINK_FD)
        ours.recv(16)
        link.send(b"ready")
        data, received, _, _ = socket.recv_fds(link, 65536, 1)
        if not data:
            return
        socket.send_fds(ours, [COMMAND.encode()], [null, null, null, received[0]])
        _tell_end(link, monitor_pid)
        ours.close()
        for fd in (*fds, *received):
            os.close(fd)


def play_cold_launcher(link: socket.socket, setup: Setup) -> None:
    """Start bubblewrap once it is asked for, before the gate, and tell when it and its init have gone; until `link` ends."""
    run = Run(structs.replace(setup, bwrap_args=(*setup.bwrap_args, b"--block-fd", b"%d" % _GATE_FD)))
    gc.freeze()
    while True:
        fds = run.prepare()
        link.send(b"ready")
        data, received, _, _ = socket.recv_fds(link, 65536, 1)
        if not data:
            return
        os.dup2(received[0], _GATE_FD, inheritable=True)
        _tell_end(link, run.spawn(fds))
        for fd in (*fds, *received, _GATE_FD):
            os.close(fd)


def _tell_end(link: socket.socket, monitor_pid: int) -> None:
    for _ in range(2):
        pid, status, _ = os.wait4(-1, 0)
        if pid == monitor_pid and status:
            raise RuntimeError(f"bubblewrap has ended with status {status}")
    link.send(END)


def play_supervisor(link: socket.socket, launcher: socket.socket, log: Path) -> None:
    """Pass a request on, make its record durable, open the gate, and pass the end on; until `link` ends."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    gc.freeze()
    while launcher.recv(16):
        link.send(b"ready")
        gate, opener = os.pipe()
        if not link.recv(65536):
            return
        socket.send_fds(launcher, [ORDER], [gate])
        os.write(file, RECORD)
        os.fdatasync(file)
        os.write(opener, b"g")
        link.send(launcher.recv(65536))
        os.close(gate)
        os.close(opener)


@contextlib.contextmanager
def _playing(play: Callable[[], None]) -> Iterator[None]:
    pid = os.fork()
    if not pid:
        try:
            with contextlib.suppress(ConnectionError):  # whoever asked has gone
                play()
        except BaseException:  # a forked child must never go on as a second bench
            traceback.print_exc()
        os._exit(0)
    try:
        yield
    finally:
        os.waitpid(pid, 0)


def measure_floor(play_launcher: Launcher, peer: RawPeer, directory: Path, *, pairs: int) -> Pairs:
    """Seconds of raw bubblewrap, and from a request to its end, by turns."""
    measured = Pairs(base_s=[], other_s=[])
    client, to_client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launcher, to_supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def launch() -> None:
        for other in (client, to_client, launcher):
            other.close()
        prctl.set_child_subreaper()
        become(peer.setup)
        play_launcher(to_supervisor, peer.setup)

    def supervise() -> None:
        for other in (client, to_supervisor):
            other.close()
        play_supervisor(to_client, launcher, directory / "floor.log")

    with _playing(launch), _playing(supervise), client:
        for ours in (to_client, launcher, to_supervisor):
            ours.close()
        for _ in range(pairs):
            if not client.recv(16):
                raise RuntimeError("a program of the floor has ended; its words are above")
            time.sleep(SETTLE_S)
            measured.base_s.append(peer.single())
            time.sleep(SETTLE_S)
            began = time.perf_counter()
            client.send(REQUEST)
            client.recv(65536)
            measured.other_s.append(time.perf_counter() - began)
    return measured


def main() -> None:
    pairs = 10 if "--quick" in sys.argv else PAIRS
    with temporary_directory() as directory, open_guest(directory) as guest, guest.connect() as client:
        session = client.session_ensure(name=SESSION).session
        with open_session_peer(guest, client, session) as peer:
            warm = measure_floor(play_warm_launcher, peer, directory, pairs=pairs)
            cold = measure_floor(play_cold_launcher, peer, directory, pairs=pairs)
    rows = [_row("warm", warm), _row("cold", cold)]
    print(table(("start", "raw bubblewrap", "three Python programs, at the least", "ratio"), rows))


def _row(name: str, measured: Pairs) -> tuple[str, ...]:
    raw, least = spread(measured.base_s), spread(measured.other_s)
    found = paired_ratio(measured.other_s, measured.base_s)
    return name, f"{raw.median * 1000:.2f} ms", f"{least.median * 1000:.2f} ms", ratio(found)


if __name__ == "__main__":
    main()
