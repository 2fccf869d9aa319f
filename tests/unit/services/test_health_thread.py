"""The thread of the health port, with real sockets and a clock of the test's."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coworkd.services.health_http import Answer
from coworkd.services.health_thread import CLIENT_S, CLIENTS, HealthThread

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
WAIT_S = 20.0


def said(path: str) -> Answer:
    return Answer(status=200, kind="text/plain", body=path.encode())


class Room:
    """A listening thread, and who connects to it."""

    def __init__(self, directory: Path, respond: Callable[[str], Answer], **more: Any) -> None:
        self.path = str(directory / "h")
        self.now = 0.0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(64)
        self.listener: Any = more.pop("wrapped", lambda it: it)(listener)
        self.thread = HealthThread(self.listener, respond, monotonic=lambda: self.now, **more)
        self.thread.start()
        self.open: list[socket.socket] = []

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(WAIT_S)
        connected.connect(self.path)
        self.open.append(connected)
        return connected

    def ask(self, request: bytes = GET) -> bytes:
        client = self.connect()
        client.sendall(request)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    found = b""
    while data := client.recv(65536):
        found += data
    return found


@contextmanager
def room(directory: Path, respond: Callable[[str], Answer] = said, **more: Any) -> Iterator[Room]:
    before = set(os.listdir("/proc/self/fd"))
    made = Room(directory, respond, **more)
    try:
        yield made
    finally:
        made.thread.close()
        made.thread.close()
        for client in made.open:
            client.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert "coworkd-health" not in {thread.name for thread in threading.enumerate()}


def test_a_request_is_answered_and_the_connection_ends(tmp_path: Path) -> None:
    with room(tmp_path) as made:
        assert made.ask().endswith(b"\r\n\r\n/x")
        assert made.ask(GET + GET).count(b"HTTP/1.1 ") == 1


def test_a_request_that_comes_byte_by_byte(tmp_path: Path) -> None:
    with room(tmp_path) as made:
        client = made.connect()
        for byte in GET:
            client.sendall(bytes([byte]))
        assert read_all(client).endswith(b"/x")


def test_who_sends_more_than_it_should_gets_its_answer_all_the_same(tmp_path: Path) -> None:
    """A socket that is closed with something unread takes the answer from its peer."""
    with room(tmp_path) as made:
        posted = made.ask(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000)
        assert posted.startswith(b"HTTP/1.1 405 ")


def test_a_long_answer_waits_for_a_slow_client(tmp_path: Path) -> None:
    body = os.urandom(3 << 20)
    with room(tmp_path, lambda path: Answer(status=200, kind="x", body=body)) as made:
        client = made.connect()
        client.sendall(GET)
        assert made.ask().endswith(body[-100:])
        assert read_all(client).endswith(body)


def test_silent_clients_keep_nobody_from_an_answer(tmp_path: Path) -> None:
    with room(tmp_path) as made:
        silent = [made.connect() for _ in range(3 * CLIENTS)]
        assert made.ask().endswith(b"/x")
        assert silent[0].recv(1) == b""  # the oldest had to go
        silent[-1].sendall(GET)
        assert read_all(silent[-1]).endswith(b"/x")


def test_a_silent_client_is_dropped_after_a_while(tmp_path: Path) -> None:
    with room(tmp_path) as made:
        silent = made.connect()
        silent.sendall(b"GET /x")
        assert made.ask().endswith(b"/x")
        made.now += CLIENT_S
        assert made.ask().endswith(b"/x")
        assert silent.recv(1) == b""


def test_a_client_that_goes_leaves_the_others_alone(tmp_path: Path) -> None:
    with room(tmp_path) as made:
        for request in (b"", b"GET /", GET):
            client = made.connect()
            client.sendall(request)
            client.close()
        assert made.ask().endswith(b"/x")


def test_who_may_not_come_is_closed_without_a_byte(tmp_path: Path) -> None:
    asked: list[Any] = []

    def may_come(address: Any) -> bool:
        asked.append(address)
        return len(asked) > 1

    with room(tmp_path, may_come=may_come) as made:
        refused = made.connect()
        assert refused.recv(1) == b""
        assert made.ask().endswith(b"/x")
    assert asked == ["", ""]


def test_an_answer_that_cannot_be_made_is_told_and_ends_nothing(tmp_path: Path) -> None:
    def respond(path: str) -> Answer:
        if path == "/x":
            raise KeyError("the secret of the house")
        return said(path)

    with room(tmp_path, respond) as made:
        failed = made.ask()
        assert failed.startswith(b"HTTP/1.1 500 ")
        assert failed.endswith(b"no answer could be made: KeyError\n")
        assert made.ask(GET.replace(b"/x", b"/y")).endswith(b"/y")


class Poor:
    """A listener of a process that is out of descriptors until it gives one up, or for good."""

    def __init__(self, listener: socket.socket, refusals: int) -> None:
        self._listener = listener
        self._refusals = refusals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> tuple[socket.socket, Any]:
        if self._refusals:
            self._refusals -= 1
            raise OSError(errno.EMFILE, "out of descriptors")
        return self._listener.accept()


@pytest.mark.parametrize("refusals", [1, 3])
def test_without_descriptors_the_one_that_is_kept_is_given_up(tmp_path: Path, refusals: int) -> None:
    with room(tmp_path, wrapped=lambda listener: Poor(listener, refusals)) as made:
        assert made.ask().endswith(b"/x")
        assert made.ask().endswith(b"/x")


def test_the_thread_answers_while_this_one_hangs(tmp_path: Path) -> None:
    """The client runs in a process of its own; this one stands in a system call until it has ended."""
    with room(tmp_path) as made:
        child = os.posix_spawn(
            "/usr/bin/env",
            ["env", "python3", "-c", _CLIENT, made.path],
            dict(os.environ),
        )
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


_CLIENT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(60)
client.connect(sys.argv[1])
client.sendall(b"GET /x HTTP/1.0\\r\\n\\r\\n")
sys.exit(0 if client.recv(65536).startswith(b"HTTP/1.1 200") else 1)
"""
