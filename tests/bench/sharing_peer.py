"""The plain way to bring the output of many programs to one client: one loop over all their pipes, and as plain a client.

    PRODUCERS ─pipes of 1 MiB─▶ epoll, splice(2) into a memfd each ─ pread 64 KiB ─ packb ─▶ unix socket ─ recv ─ Unpacker ─▶ count

It keeps what coworkd keeps, the last 1 MiB of each stream, and nothing is bounded or fair. So its ratio of many to one is what the machine
gives: the more streams, the more memory has gone cold when it is used again. Its producers are in no sandbox.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys

import msgpack  # type: ignore[import-untyped]

from coworkd.system import spool_file
from tests.bench.stream_peer import CHUNK_BYTES, SPLICE_BYTES, time_sender

BLOCK_BYTES = 64 * 1024
KEPT_BYTES = 1024 * 1024
_READY_AT_ONCE = 4
_WRITER = (
    r'sysread STDIN, $_, 3; $block = "\0" x $ARGV[0]; syswrite STDOUT, $block for 1 .. $ARGV[1]; sysread STDIN, $_, 1'
)
"""For perl, which is part of every Debian and Ubuntu: dd cannot wait before it writes, and a shell would have to start it."""


def compose_writer(part_bytes: int) -> list[str]:
    """Writes `part_bytes`, a multiple of blocks, once it has read a line, and then waits for the end of its stdin."""
    return ["/usr/bin/perl", "-e", _WRITER, str(BLOCK_BYTES), str(part_bytes // BLOCK_BYTES)]


def share_plainly(streams: int, size_bytes: int) -> float:
    """Seconds for `size_bytes` shared among `streams`; raises RuntimeError where not all came."""
    return time_sender(["-m", "tests.bench.sharing_peer"], [str(streams), str(size_bytes)], size_bytes)


class _Kept:
    """The last bytes of one pipe."""

    def __init__(self, pipe_fd: int) -> None:
        self.pipe_fd = pipe_fd
        self.first = self.end = 0
        self._fd = spool_file.create("bench")
        spool_file.set_pipe_bytes(pipe_fd, SPLICE_BYTES)

    def send(self, link: socket.socket) -> int:
        """Send what the pipe has; how many bytes that was."""
        offset, count = self.end, spool_file.splice(self.pipe_fd, self._fd, SPLICE_BYTES)
        self.end += count
        for start in range(offset, self.end, CHUNK_BYTES):
            data = os.pread(self._fd, min(CHUNK_BYTES, self.end - start), start)
            params = {"process": str(self.pipe_fd), "stream": "stdout", "offset": start, "data": data}
            link.sendall(msgpack.packb([2, "process.output", [params]]))
        if self.end - self.first > KEPT_BYTES * 9 // 8:
            keep_from = (self.end - KEPT_BYTES) // spool_file.PAGE_BYTES * spool_file.PAGE_BYTES
            spool_file.punch_hole(self._fd, self.first, keep_from - self.first)
            self.first = keep_from
        return count


def _send(link: socket.socket, streams: int, size_bytes: int) -> None:
    with contextlib.ExitStack() as stack, select.epoll() as ready:
        kept, producers = {}, []
        for _ in range(streams):
            command = compose_writer(size_bytes // streams)
            producer = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            producers.append(stack.enter_context(producer))
            assert producer.stdout is not None
            kept[producer.stdout.fileno()] = _Kept(producer.stdout.fileno())
            ready.register(producer.stdout.fileno(), select.EPOLLIN)
        link.sendall(b"r")
        link.recv(1)
        for producer in producers:
            assert producer.stdin is not None
            producer.stdin.write(b"go\n")
        sent = 0
        while sent < size_bytes:
            for pipe_fd, _ in ready.poll(-1, _READY_AT_ONCE):
                sent += kept[pipe_fd].send(link)
        link.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection, contextlib.suppress(BrokenPipeError):
        _send(connection, int(sys.argv[2]), int(sys.argv[3]))
