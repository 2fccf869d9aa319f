"""ssh's way through the HTTP proxy: runs inside the sandbox as its ProxyCommand, never trusted, standard library only.

argv: PROXY_HOST PROXY_PORT HOST PORT. stdin goes to HOST, what HOST says to stdout, until HOST has ended; the end of stdin is told
to HOST. A refusal is one line on stderr and exit 1.
"""

import os
import socket
import sys
import threading

HEAD_LIMIT_BYTES = 16384
PIECE_BYTES = 65536
REASON_S = 2.0


def main() -> None:
    proxy_host, proxy_port, host, port = sys.argv[1:5]
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with socket.create_connection((proxy_host, int(proxy_port))) as link:
        link.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head, rest = read_head(link)
        version, code, *words = [*head.split("\r\n")[0].split(" ", 2), "", ""][:3]
        if not version.startswith("HTTP/1.") or code != "200":
            said = read_reason(link, rest) or " ".join([code, *words]).strip() or "the proxy hung up"
            sys.exit(f"{target}: {said}")
        threading.Thread(target=send, args=(link,), daemon=True).start()
        write(rest)
        while piece := link.recv(PIECE_BYTES):
            write(piece)
    os._exit(0)


def read_head(link: socket.socket) -> tuple[str, bytes]:
    """The answer's head, empty if it has no end, and what came behind it."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < HEAD_LIMIT_BYTES:
        piece = link.recv(PIECE_BYTES)
        if not piece:
            break
        received += piece
    head, ended, rest = received.partition(b"\r\n\r\n")
    return head.decode("ascii", "replace") if ended else "", rest


def read_reason(link: socket.socket, rest: bytes) -> str:
    """The first line of a refusal's body, which may come behind its head."""
    link.settimeout(REASON_S)
    try:
        while b"\n" not in rest and len(rest) < HEAD_LIMIT_BYTES and (piece := link.recv(PIECE_BYTES)):
            rest += piece
    except OSError:
        pass  # what has come is said
    return rest.decode("utf-8", "replace").strip().partition("\n")[0]


def send(link: socket.socket) -> None:
    try:
        while piece := os.read(0, PIECE_BYTES):
            link.sendall(piece)
        link.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has gone, which the reader sees as well


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


main()
