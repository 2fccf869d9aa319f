"""How fast a command's output reaches a client: ours and the plain loop by turns."""

from __future__ import annotations

import time
from typing import Literal

from msgspec import Struct

from coworkd.client.sync import Client
from tests.bench.guest import SESSION
from tests.bench.spawning import Pairs
from tests.bench.stream_peer import stream_plainly


class Course(Struct, frozen=True, kw_only=True):
    """Who writes, and which plain loop is beside us."""

    name: str
    writer: Literal["head", "dd"]
    keep: bool


COURSES = (
    Course(name="head writes 4 KiB at a time; the loop keeps", writer="head", keep=True),
    Course(name="dd writes 64 KiB at a time; the loop keeps", writer="dd", keep=True),
    Course(name="dd writes 64 KiB at a time; the loop keeps nothing", writer="dd", keep=False),
)


def measure_streaming(client: Client, course: Course, *, size_bytes: int, pairs: int) -> Pairs:
    """Seconds for `size_bytes` (a multiple of 64 KiB), plain and ours by turns."""
    if course.writer == "head":
        argv = ["/usr/bin/head", "-c", str(size_bytes), "/dev/zero"]
    else:
        argv = ["/bin/dd", "if=/dev/zero", "bs=64K", f"count={size_bytes // 65536}", "status=none"]
    measured = Pairs(base_s=[], other_s=[])
    for _ in range(pairs):
        measured.base_s.append(stream_plainly(argv, size_bytes, keep=course.keep))
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
