"""Our vsock device under a real guest's driver: bytes both ways, half-closed, many at once, and both sides' refusals."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.vm.guest_lab import Guest
from tests.vm.root_shell import RootShell

MIB = 1 << 20
DIGEST, ECHO, LAZY, NOBODY = 7001, 7002, 7003, 7099
HOST_PORT = 7004

# Each in a thread of its own: what comes is hashed until its end, or given back, or never read.
SERVER = f"""
import hashlib, socket, threading
def listen(port):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.bind((-1, port)); s.listen(128)
    return s
def digest(c):
    h = hashlib.sha256()
    while d := c.recv(65536): h.update(d)
    c.sendall(h.digest()); c.close()
def echo(c):
    while d := c.recv(65536): c.sendall(d)
    c.close()
def lazy(c): kept.append(c)
kept = []
def serve(s, what):
    while True: threading.Thread(target=what, args=(s.accept()[0],)).start()
for port, what in (({DIGEST}, digest), ({ECHO}, echo), ({LAZY}, lazy)):
    threading.Thread(target=serve, args=(listen(port), what)).start()
print("up", flush=True)
"""

DIAL = """
import hashlib, socket, sys
c = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
try: c.connect((int(sys.argv[1]), int(sys.argv[2])))
except OSError as error: sys.exit(f"refused {error.errno}")
c.sendall(b"question"); c.shutdown(socket.SHUT_WR)
h = hashlib.sha256()
while d := c.recv(65536): h.update(d)
print(h.hexdigest())
"""


@pytest.fixture
def shell(guest: Guest) -> Iterator[RootShell]:
    made = RootShell(guest.spec.state_dir / "shell.sock")
    made.check(f"cat > /tmp/dial.py <<'END'\n{DIAL}\nEND")
    made.check(f"cat > /tmp/serve.py <<'END'\n{SERVER}\nEND")
    made.check("python3 /tmp/serve.py > /tmp/up 2>&1 & while ! grep -q up /tmp/up; do sleep 0.1; done", timeout_s=240)
    yield made
    made.close()


def connect(guest: Guest, port: int) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(os.fspath(guest.spec.vsock))
    client.sendall(b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            client.close()
            raise ConnectionRefusedError
        line += byte
    assert line.startswith(b"OK ")
    return client


def send_whole(client: socket.socket, whole: bytes) -> None:
    client.sendall(whole)
    client.shutdown(socket.SHUT_WR)


def read_all(client: socket.socket) -> bytes:
    got = bytearray()
    while data := client.recv(1 << 16):
        got += data
    return bytes(got)


def test_streams_to_the_guest_and_back(guest: Guest, shell: RootShell) -> None:
    """One test, for a clone costs more than all of it."""
    check_half_close(guest)
    check_both_ways(guest)
    check_many_at_once(guest)
    check_a_guest_that_does_not_read(guest)
    with pytest.raises(ConnectionRefusedError):
        connect(guest, NOBODY)
    check_guest_dials(guest, shell)


def check_half_close(guest: Guest) -> None:
    whole = os.urandom(8 * MIB)
    with connect(guest, DIGEST) as client:
        send_whole(client, whole)
        assert read_all(client) == hashlib.sha256(whole).digest()


def check_both_ways(guest: Guest) -> None:
    whole = os.urandom(4 * MIB)
    with connect(guest, ECHO) as client:
        sender = threading.Thread(target=send_whole, args=(client, whole))
        sender.start()
        assert read_all(client) == whole
        sender.join()


def check_many_at_once(guest: Guest) -> None:
    clients = [connect(guest, ECHO) for _ in range(100)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
        client.shutdown(socket.SHUT_WR)
    assert [read_all(client) for client in clients] == [b"%d" % number for number in range(100)]
    for client in clients:
        client.close()


def check_a_guest_that_does_not_read(guest: Guest) -> None:
    with connect(guest, LAZY) as stuck, connect(guest, ECHO) as other:
        stuck.settimeout(1)
        with pytest.raises(TimeoutError):
            stuck.sendall(bytes(64 * MIB))
        other.sendall(b"not stuck")
        assert other.recv(100) == b"not stuck"


def check_guest_dials(guest: Guest, shell: RootShell) -> None:
    path = f"{guest.spec.vsock}_{HOST_PORT}"
    answer = os.urandom(2 * MIB)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
        service.bind(path)
        service.listen(8)
        service.settimeout(60)

        def serve() -> None:
            client, _ = service.accept()
            with client:
                asked.append(read_all(client))
                client.sendall(answer)

        asked: list[bytes] = []
        server = threading.Thread(target=serve)
        server.start()
        assert shell.check(f"python3 /tmp/dial.py 2 {HOST_PORT}").strip() == hashlib.sha256(answer).hexdigest()
        server.join()
    os.unlink(path)
    assert asked == [b"question"]
    assert "refused 104" in shell.run(f"python3 /tmp/dial.py 2 {HOST_PORT}").output
