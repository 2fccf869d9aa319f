"""The client of the egress benchmark: one process, one file, no library, the same for every contestant.

It sends bulk bytes from memory, as programs do, drops what comes in the kernel (MSG_TRUNC), and drives many small connections from
one epoll loop, so that what is measured is the way and not the client. argv[1] is a JSON object:

    via     raw | connect | socks       how a connection to the target is asked for
    proxy   [host, port]                null: where HTTP_PROXY and FTP_PROXY say, with their credentials
    target  [host, port]                an `egress_server`
    do      down | up | small | crowd | hold, with `bytes`, `count` and `concurrency`

The answer is one JSON object on stdout; `hold` says `held` first, and waits for the end of stdin with its tunnels open.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

LINE_BYTES = 64
_BLOCK_BYTES = 1 << 20
_STALLED_BYTES = 4 << 20
_DESCRIPTORS = 16_384

Step = tuple[bytes, Callable[[bytes], bool]]
"""What is sent, and whether what came is the whole answer; ValueError where it is a refusal."""


class Way:
    """How connections are opened: the address to connect to, and the steps of the proxy's handshake."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.via = asked["via"]
        self.host, self.port = asked["target"]
        user = ""
        if self.via == "raw":
            self.address = (self.host, self.port)
        elif asked.get("proxy"):
            self.address = tuple(asked["proxy"])
        else:
            url = urlsplit(os.environ["FTP_PROXY" if self.via == "socks" else "HTTP_PROXY"])
            self.address = ("127.0.0.1", url.port or 0)
            user = f"{unquote(url.username)}:{unquote(url.password or '')}" if url.username else ""
        self.steps = self._steps(user)

    def _steps(self, user: str) -> list[Step]:
        host, port = self.host.encode(), self.port
        if self.via == "connect":
            lines = [b"CONNECT %s:%d HTTP/1.1" % (host, port), b"Host: %s:%d" % (host, port)]
            if user:
                lines.append(b"Proxy-Authorization: Basic " + base64.b64encode(user.encode()))
            return [(b"\r\n".join(lines) + b"\r\n\r\n", _is_open_http)]
        if self.via == "socks":
            request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + port.to_bytes(2, "big")
            if not user:
                return [(b"\x05\x01\x00", _is_two(b"\x05\x00")), (request, _is_open_socks)]
            name, _, secret = user.encode().partition(b":")
            words = b"\x01" + bytes([len(name)]) + name + bytes([len(secret)]) + secret
            return [(b"\x05\x01\x02", _is_two(b"\x05\x02")), (words, _is_two(b"\x01\x00")), (request, _is_open_socks)]
        return []

    def open(self) -> socket.socket:
        """A connection to the target; blocking."""
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data, is_whole in self.steps:
            connection.send(data)
            came = b""
            while not is_whole(came):
                piece = connection.recv(4096)
                if not piece:
                    raise ValueError(f"closed after {came!r}")
                came += piece
        return connection


def _is_open_http(came: bytes) -> bool:
    if b"\r\n\r\n" not in came:
        return False
    if not came.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise ValueError(f"refused: {came!r}")
    return True


def _is_two(wanted: bytes) -> Callable[[bytes], bool]:
    def is_whole(came: bytes) -> bool:
        if not wanted.startswith(came):
            raise ValueError(f"refused: {came!r}")
        return len(came) == len(wanted)

    return is_whole


def _is_open_socks(came: bytes) -> bool:
    if len(came) > 1 and came[1] != 0:
        raise ValueError(f"refused: {came!r}")
    return len(came) >= 10


def line(word: str) -> bytes:
    return word.encode().ljust(LINE_BYTES - 1, b".") + b"\n"


# -- what is measured ---------------------------------------------------------------------------------------------


def down(way: Way, asked: dict[str, Any]) -> dict[str, Any]:
    wanted, nowhere, came = asked["bytes"], bytearray(_BLOCK_BYTES), 0
    with way.open() as connection:
        began = time.perf_counter()
        connection.send(line(f"D{wanted}"))
        while taken := connection.recv_into(nowhere, _BLOCK_BYTES, socket.MSG_TRUNC):
            came += taken
        took = time.perf_counter() - began
    if came != wanted:
        raise ValueError(f"{came} bytes came, not {wanted}")
    return {"seconds": took}


def up(way: Way, asked: dict[str, Any]) -> dict[str, Any]:
    left = asked["bytes"]
    zeros = memoryview(bytes(_BLOCK_BYTES))
    with way.open() as connection:
        began = time.perf_counter()
        connection.send(line(f"U{left}"))
        while left:
            left -= connection.send(zeros[: min(left, _BLOCK_BYTES)])
        answer = connection.recv(3)
        took = time.perf_counter() - began
    if answer != b"ok\n":
        raise ValueError(f"the server said {answer!r}")
    return {"seconds": took}


def small(way: Way, asked: dict[str, Any]) -> dict[str, Any]:
    """One after another: from before the connection to the end of the answer."""
    request, each = line("E"), []
    for _ in range(asked["count"]):
        began = time.perf_counter()
        with way.open() as connection:
            connection.send(request)
            came = b""
            while piece := connection.recv(4096):
                came += piece
        each.append(time.perf_counter() - began)
        if came != request:
            raise ValueError(f"the server said {came!r}")
    return {"each": each, "seconds": sum(each)}


def crowd(way: Way, asked: dict[str, Any]) -> dict[str, Any]:
    """`count` small requests, `concurrency` at a time, each on a connection of its own."""
    poll = select.epoll()
    left = asked["count"]
    open_now: dict[int, tuple[socket.socket, Iterator[None]]] = {}
    began = time.perf_counter()
    while left or open_now:
        while left and len(open_now) < asked["concurrency"]:
            left -= 1
            connection = socket.create_connection(way.address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            life = _live(way, connection)
            next(life)
            open_now[connection.fileno()] = (connection, life)
            poll.register(connection, select.EPOLLIN)
        for fd, _ in poll.poll():
            connection, life = open_now[fd]
            try:
                next(life)
            except StopIteration:
                del open_now[fd]
                connection.close()
    return {"seconds": time.perf_counter() - began}


def _live(way: Way, connection: socket.socket) -> Iterator[None]:
    """One small request; yields where it has to wait for more to read."""
    for data, is_whole in way.steps:
        connection.send(data)
        came = b""
        while not is_whole(came):
            yield
            piece = connection.recv(4096)
            if not piece:
                raise ValueError(f"closed after {came!r}")
            came += piece
    request, came = line("E"), b""
    connection.send(request)
    while True:
        yield
        piece = connection.recv(4096)
        if not piece:
            break
        came += piece
    if came != request:
        raise ValueError(f"the server said {came!r}")


def hold(way: Way, asked: dict[str, Any]) -> dict[str, Any]:
    """Keep `count` tunnels open until stdin ends; `stalled` of them have bytes on the way that are never read."""
    stalled = asked.get("stalled", 0)
    tunnels = []
    for number in range(asked["count"]):
        connection = way.open()
        word = line(f"S{_STALLED_BYTES}" if number < stalled else "H")
        connection.send(word)
        if connection.recv(LINE_BYTES, socket.MSG_WAITALL) != word:
            raise ValueError("a tunnel does not answer")
        tunnels.append(connection)
    print("held", flush=True)
    sys.stdin.buffer.read()
    for connection in tunnels:
        connection.close()
    return {"seconds": 0.0}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    asked = json.loads(sys.argv[1])
    answer = {"down": down, "up": up, "small": small, "crowd": crowd, "hold": hold}[asked["do"]](Way(asked), asked)
    own = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**answer, "cpu_s": own.ru_utime + own.ru_stime}), flush=True)


if __name__ == "__main__":
    main()
