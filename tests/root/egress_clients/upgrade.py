"""Ask argv[2] over argv[1] (`http` or `https`) for an upgrade, through the HTTP proxy, and send 300,000 bytes through it."""

from __future__ import annotations

import os
import socket
import ssl
import sys

PIECE_BYTES = 10_000
BODY = os.urandom(30 * PIECE_BYTES)


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1)
        assert piece, head
        head += piece
    return head


def main() -> None:
    scheme, host = sys.argv[1:]
    connection = socket.create_connection(("127.0.0.1", 3128), 20)
    target = "/upgrade"
    if scheme == "https":
        connection.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        assert b" 200 " in read_head(connection)
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
        connection = context.wrap_socket(connection, server_hostname=host)
    else:
        target = f"http://{host}/upgrade"
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    connection.sendall(head.encode())
    answer = read_head(connection)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    for at in range(0, len(BODY), PIECE_BYTES):
        connection.sendall(BODY[at : at + PIECE_BYTES])
        came = b""
        while len(came) < PIECE_BYTES:
            piece = connection.recv(PIECE_BYTES - len(came))
            assert piece, (at, len(came))
            came += piece
        assert came == BODY[at : at + PIECE_BYTES]
    print(f"echoed {len(BODY)}")


if __name__ == "__main__":
    main()
