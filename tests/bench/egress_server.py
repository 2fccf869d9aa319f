"""What the benchmark's connections reach: one lean server behind a veth pair, the same for every contestant.

Each connection says one line of `LINE_BYTES` bytes, filled up with dots, and is served by its first letter:

    E…        the line comes back, then the server closes: the small request
    D COUNT…  COUNT zero bytes, a MiB a send(2), then the server closes
    U COUNT…  COUNT bytes are dropped in the kernel (MSG_TRUNC), then `ok\\n`, and the server closes
    H…        the line comes back and the connection is kept until the client has gone: an open tunnel
    S COUNT…  as H, with COUNT bytes behind it that nobody may ever read: a stalled tunnel

The server closes first, so that TIME-WAIT piles up at its end of the address pair and no contestant runs out of ports.
argv: ADDRESS PORT. Says `ready` when it listens; the end of stdin ends it.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
import threading

LINE_BYTES = 64
_BLOCK_BYTES = 1 << 20
_ZEROS = memoryview(bytes(_BLOCK_BYTES))
_BACKLOG = 4096
_DESCRIPTORS = 16_384


class Server:
    """One epoll loop for the small and the kept; a thread for each bulk transfer."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        listener.setblocking(False)
        self._poll.register(listener, select.EPOLLIN)

    def run(self, ends: int) -> None:
        """Serve until `ends` is readable."""
        self._poll.register(ends, select.EPOLLIN)
        listening = self._listener.fileno()
        while True:
            for fd, _ in self._poll.poll():
                if fd == listening:
                    self._accept()
                elif fd == ends:
                    return
                else:
                    self._serve(fd)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fd = connection.fileno()
            self._open[fd] = connection
            self._poll.register(fd, select.EPOLLIN)

    def _serve(self, fd: int) -> None:
        connection = self._open[fd]
        try:
            line = connection.recv(LINE_BYTES)
            self._obey(fd, connection, line)
        except OSError:
            self._close(fd)

    def _obey(self, fd: int, connection: socket.socket, line: bytes) -> None:
        word = line[:1]
        if word == b"E":
            connection.send(line)
            self._close(fd)
        elif word in (b"D", b"U"):
            self._poll.unregister(fd)
            del self._open[fd]
            count = _count_of(line)
            threading.Thread(target=self._move, args=(connection, word, count), daemon=True).start()
        elif word in (b"H", b"S"):
            connection.send(line)
            if word == b"S":
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.send(bytes(_count_of(line)))
        else:
            self._close(fd)

    def _move(self, connection: socket.socket, word: bytes, count: int) -> None:
        with connection, contextlib.suppress(OSError):
            if word == b"D":
                while count:
                    count -= connection.send(_ZEROS[: min(count, _BLOCK_BYTES)])
            else:
                nowhere = bytearray(_BLOCK_BYTES)
                while count:
                    taken = connection.recv_into(nowhere, min(count, _BLOCK_BYTES), socket.MSG_TRUNC)
                    if not taken:
                        return
                    count -= taken
                connection.send(b"ok\n")

    def _close(self, fd: int) -> None:
        self._open.pop(fd).close()


def _count_of(line: bytes) -> int:
    return int(line[1:].rstrip(b".\n"))


def main() -> None:
    address, port = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    with socket.create_server((address, port), backlog=_BACKLOG) as listener:
        print("ready", flush=True)
        Server(listener).run(0)


if __name__ == "__main__":
    main()
