"""Servers of one behaviour each: echo, discard, an endless stream, an answer behind the end of input, a reset, silence, a greeting."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable

from tests.root.servers.seen import Seen

CHUNK_BYTES = 256 * 1024
ECHO, DISCARD, ENDLESS, COUNTING, RESETTING, SILENT, GREETING = 7, 9, 19, 17, 1009, 1010, 1011


def echo(connection: socket.socket) -> None:
    while data := connection.recv(CHUNK_BYTES):
        connection.sendall(data)


def discard(connection: socket.socket) -> None:
    while connection.recv(CHUNK_BYTES):
        pass


def endless(connection: socket.socket) -> None:
    data = bytes(CHUNK_BYTES)
    while True:
        connection.sendall(data)


def count(connection: socket.socket) -> None:
    """Says how many bytes came, but only once the client has ended its side: a half-close that is kept."""
    total = 0
    while data := connection.recv(CHUNK_BYTES):
        total += len(data)
    connection.sendall(b"%d\n" % total)


def reset(connection: socket.socket) -> None:
    """A few bytes, then RST."""
    connection.recv(1)
    connection.sendall(b"so far")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stay_silent(connection: socket.socket) -> None:
    """Takes nothing, says nothing, until the peer has gone."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll()


def greet(connection: socket.socket) -> None:
    """Speaks first, as a mail server does."""
    connection.sendall(b"220 ready\r\n")
    echo(connection)


SERVERS: dict[int, Callable[[socket.socket], None]] = {
    ECHO: echo,
    DISCARD: discard,
    ENDLESS: endless,
    COUNTING: count,
    RESETTING: reset,
    SILENT: stay_silent,
    GREETING: greet,
}


def serve_plain(listener: socket.socket, name: str, behave: Callable[[socket.socket], None], seen: Seen) -> None:
    """A thread per connection, for ever."""

    def run(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            seen.connection(name, connection)
            behave(connection)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()
