"""How fast a command's output reaches a client: ours and the plain loop by turns."""

from __future__ import annotations

import time

from coworkd.client.sync import Client
from tests.bench.guest import SESSION
from tests.bench.spawning import Pairs
from tests.bench.stream_peer import stream_plainly

WRITERS = {
    "head, writes of 4 KiB": lambda size: ["/usr/bin/head", "-c", str(size), "/dev/zero"],
    "dd, writes of 64 KiB": lambda size: ["/bin/dd", "if=/dev/zero", "bs=64K", f"count={size // 65536}", "status=none"],
}


def measure_streaming(client: Client, writer: str, *, size_bytes: int, pairs: int) -> Pairs:
    """Seconds for `size_bytes` (a multiple of 64 KiB), plain and ours by turns."""
    argv = WRITERS[writer](size_bytes)
    measured = Pairs(base_s=[], other_s=[])
    for _ in range(pairs):
        measured.base_s.append(stream_plainly(argv, size_bytes))
        measured.other_s.append(_stream(client, argv, size_bytes))
    return measured


def _stream(client: Client, argv: list[str], wanted_bytes: int) -> float:
    received, began = 0, time.perf_counter()
    with client.start(SESSION, argv) as process:
        for piece in process:
            received += len(piece.data)
        took = time.perf_counter() - began
    if received != wanted_bytes:
        raise RuntimeError(f"{received} bytes came, not {wanted_bytes}")
    return took
