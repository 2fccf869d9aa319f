"""The plain way to bring a program's output to a client: a blocking splice-and-msgpack loop, and as plain a client.

    PRODUCER ─pipe─▶ splice(2) into a memfd ─ pread 64 KiB ─ packb ─▶ unix socket ─ recv ─ Unpacker ─▶ count

As in ours, the producer, the sender and the client are a process each. Nothing is bounded or fair here. It comes in two kinds: one
appends to its file and keeps all of it, as a spool does; one splices to offset 0 over and over, and so saves the kernel every new page.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import msgpack  # type: ignore[import-untyped]

from tests.bench.guest import ROOT

CHUNK_BYTES = 64 * 1024
SPLICE_BYTES = 1024 * 1024
RECEIVE_BYTES = 256 * 1024


def stream_plainly(argv: list[str], wanted_bytes: int, *, keep: bool) -> float:
    """Seconds until all of `argv`'s output was unpacked here; raises RuntimeError where it is not `wanted_bytes`."""
    return time_sender(["-m", "tests.bench.stream_peer"], ["keep" if keep else "reuse", *argv], wanted_bytes)


def time_sender(program: list[str], arguments: list[str], wanted_bytes: int) -> float:
    """Seconds from the word to begin until all was unpacked here, of a Python program that gets its socket's number first and says a byte
    when it is ready. Raises RuntimeError where it is not `wanted_bytes`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = [sys.executable, *program, str(theirs.fileno()), *arguments]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT) as sender:
        theirs.close()
        ours.recv(1)
        began = time.perf_counter()
        ours.sendall(b"g")
        received = receive_plainly(ours)
        took = time.perf_counter() - began
        sender.wait(10)
    if received != wanted_bytes:
        raise RuntimeError(f"{received} bytes came, not {wanted_bytes}")
    return took


def receive_plainly(link: socket.socket) -> int:
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=4 * SPLICE_BYTES)
    received = 0
    while data := link.recv(RECEIVE_BYTES):
        unpacker.feed(data)
        for _, _, params in unpacker:
            received += len(params[0]["data"])
    return received


def _send(link: socket.socket, argv: list[str], *, keep: bool) -> None:
    spool = os.memfd_create("bench", os.MFD_CLOEXEC)
    link.sendall(b"r")
    link.recv(1)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        pipe, offset = producer.stdout.fileno(), 0
        while count := os.splice(pipe, spool, SPLICE_BYTES, offset_dst=None if keep else 0):
            first = offset if keep else 0
            for start in range(first, first + count, CHUNK_BYTES):
                data = os.pread(spool, min(CHUNK_BYTES, first + count - start), start)
                params = {"process": "peer", "stream": "stdout", "offset": offset, "data": data}
                link.sendall(msgpack.packb([2, "process.output", [params]]))
                offset += len(data)
    link.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection, contextlib.suppress(BrokenPipeError):
        _send(connection, sys.argv[3:], keep=sys.argv[2] == "keep")
