"""A tunnel to argv[1]:argv[2] (an echo) through the HTTP proxy.

Says `open`; each line of stdin goes through and is printed as it comes back; `closed` once the other side has ended it.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time


def main() -> None:
    host, port = sys.argv[1:]
    connection = socket.create_connection(("127.0.0.1", 3128), 30)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1)
        if not piece:
            sys.exit(f"refused: {head!r}")
        head += piece
    assert head.startswith(b"HTTP/1.1 200"), head
    print("open", flush=True)
    connection.setblocking(False)
    while True:
        readable, _, _ = select.select([connection.fileno(), 0], [], [])
        if 0 in readable:
            line = os.read(0, 65536)
            if not line:
                return
            connection.sendall(line)
        if connection.fileno() in readable:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                print("closed", flush=True)
                while True:
                    time.sleep(3600)
            os.write(1, data)


if __name__ == "__main__":
    main()
