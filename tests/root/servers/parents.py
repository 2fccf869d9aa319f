"""Proxies that stand outside: an HTTP parent that wants credentials, a SOCKS5 parent, and the host's end of the `host` upstream.

Each resolves by the lab's own table, notes what it was asked and by whom, and copies both ways.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.root.servers import dns
from tests.root.servers.seen import Seen

HTTP_PORT, SOCKS_PORT = 3129, 1081
USER, SECRET = "lab", "s3cret"
HOST_SOCKET = "host.sock"
REFUSED_BY_HOST = f"denied-by-host.{dns.DOMAIN}"
_PIECE_BYTES = 65536
_HEAD_LIMIT = 65536


def reach(host: str, port: int) -> socket.socket:
    """A connection to a name of the zone, or to an address."""
    label = host.removesuffix(f".{dns.DOMAIN}")
    return socket.create_connection((dns.GOOD.get(label, (host,))[0], port), 10)


def carry(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways, half-closes kept."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(other, one), daemon=True)
    back.start()
    copy(one, other)
    back.join()


def read_head(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The first line, the fields by lower-case name, and what came behind."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_LIMIT:
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            raise ConnectionError("no head")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return first, {name.lower(): value for name, value in fields.items()}, rest


def http_parent(connection: socket.socket, seen: Seen) -> None:
    """CONNECT, and absolute-form requests, which go on as they are with `Connection: close`."""
    first, fields, rest = read_head(connection)
    seen.write(server="http parent", request=first, headers=list(fields.items()))
    wanted = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    if fields.get("proxy-authorization") != f"Basic {wanted}":
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        return
    method, target, _ = first.split(" ")
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        with reach(host.strip("[]"), int(port)) as server:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            server.sendall(rest)
            carry(connection, server)
        return
    url = urlsplit(target)
    kept = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if name != "proxy-authorization")
    with reach(url.hostname or "", url.port or 80) as server:
        server.sendall(f"{method} {url.path or '/'} HTTP/1.1\r\n{kept}\r\n".encode() + rest)
        carry(connection, server)


def socks_parent(connection: socket.socket, seen: Seen) -> None:
    """SOCKS5, with user name and password where the client has them; names are resolved here."""
    with connection.makefile("rb") as stream:
        methods = stream.read(stream.read(2)[1])
        if b"\x02" in methods:
            connection.sendall(b"\x05\x02")
            user = stream.read(stream.read(2)[1]).decode()
            secret = stream.read(stream.read(1)[0]).decode()
            connection.sendall(b"\x01" + bytes([(user, secret) != (USER, SECRET)]))
        else:
            connection.sendall(b"\x05\x00")
        kind = stream.read(4)[3]
        if kind == 3:
            host = stream.read(stream.read(1)[0]).decode()
        else:
            host = socket.inet_ntop(
                *((socket.AF_INET, stream.read(4)) if kind == 1 else (socket.AF_INET6, stream.read(16)))
            )
        port = int.from_bytes(stream.read(2), "big")
        seen.write(server="socks parent", request=f"{host}:{port}")
        with reach(host, port) as server:
            connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
            carry(connection, server)


def the_host(connection: socket.socket, seen: Seen) -> None:
    """`CONNECT host:port` with `Cowork-Session`, answered 200, 403 or 502."""
    first, fields, rest = read_head(connection)
    seen.write(server="the host", request=first, session=fields.get("cowork-session"))
    host, _, port = first.split(" ")[1].rpartition(":")
    if host == REFUSED_BY_HOST:
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        return
    try:
        server = reach(host.strip("[]"), int(port))
    except OSError:
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        return
    with server:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        server.sendall(rest)
        carry(connection, server)


def listen_as_host(directory: str) -> socket.socket:
    """The unix socket; coworkd-egress is an ordinary user and must get at it."""
    path = os.path.join(directory, HOST_SOCKET)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(128)
    return listener


def serve_parent(listener: socket.socket, behave: Callable[[socket.socket, Seen], None], seen: Seen) -> None:
    """A thread per connection, for ever."""

    def run(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError, IndexError):
            behave(connection, seen)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()
