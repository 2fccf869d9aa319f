"""Until SIGTERM: a request every 0.1 s through one tunnel (`/tick-N`), and one each on new tunnels (`/new-N`), one after another.

At the end one line of JSON: how many connections were opened, and what failed.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading

WAIT_S = 60.0
EVERY_S = 0.1


class Ticker:
    """Two threads, and what they have seen."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.ended = threading.Event()
        self.connections = 0
        self.failed: list[str] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._tick, self._renew)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps({"connections": self.connections, "failed": self.failed}), flush=True)

    def _guarded(self, work: object) -> None:
        try:
            assert callable(work)
            work()
        except (OSError, AssertionError) as error:
            self.failed.append(f"{type(error).__name__}: {error}")

    def _tick(self) -> None:
        with self._open() as tunnel:
            number = 0
            while not self.ended.wait(EVERY_S):
                number += 1
                self._get(tunnel, f"/tick-{number}")

    def _renew(self) -> None:
        number = 0
        while not self.ended.wait(EVERY_S):
            number += 1
            with self._open() as tunnel:
                self._get(tunnel, f"/new-{number}")

    def _open(self) -> socket.socket:
        tunnel = socket.create_connection(("127.0.0.1", 3128), WAIT_S)
        tunnel.sendall(f"CONNECT {self.host}:8080 HTTP/1.1\r\nHost: {self.host}:8080\r\n\r\n".encode())
        answer = self._read_head(tunnel)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        self.connections += 1
        return tunnel

    def _get(self, tunnel: socket.socket, path: str) -> None:
        tunnel.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        head = self._read_head(tunnel)
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while length:
            length -= len(tunnel.recv(length))

    def _read_head(self, tunnel: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = tunnel.recv(1)
            assert piece, head
            head += piece
        return head


def main() -> None:
    ticker = Ticker(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: ticker.ended.set())
    ticker.run()


if __name__ == "__main__":
    main()
