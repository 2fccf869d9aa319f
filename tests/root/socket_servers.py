"""Servers inside sessions, for forwards and bridges: what they run, and how a test knows that they listen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coworkd.client.process import Process
from coworkd.client.sync import Client

PYTHON = "/usr/bin/python3"
_SERVE = """
import socket, sys, threading
def serve(made):
    with made:
        try:
            talk(made)
        except OSError as error:
            print("broken", error.errno, flush=True)
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family, backlog=512)
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
ECHO = """
def talk(made):
    while data := made.recv(65536):
        made.sendall(data)
"""
COUNT = """
def talk(made):
    count = 0
    while data := made.recv(65536):
        count += len(data)
    print("counted", count, flush=True)
    made.sendall(b"%d" % count)
"""
"""Answers with how many bytes came, once they have ended."""
ENDLESS = """
def talk(made):
    while True:
        made.sendall(bytes(65536))
"""
DEAF = """
import time
def talk(made):
    time.sleep(1000)
"""
"""Accepts, and neither reads nor writes."""


class Server:
    """One that runs in a session; `line` is what it says next."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._said = b""
        assert self.line() == "listening"

    def line(self, timeout_s: float = 60) -> str:
        while b"\n" not in self._said:
            piece = self.process.read(timeout_s=timeout_s)
            assert piece is not None, f"said only {self._said!r}"
            self._said += piece.data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


@contextlib.contextmanager
def serving(client: Client, session: str, talk: str, port: int, address: str = "127.0.0.1") -> Iterator[Server]:
    """A server in `session` for the block."""
    with client.start(session, [PYTHON, "-I", "-c", talk + _SERVE, address, str(port)]) as process:
        yield Server(process)
