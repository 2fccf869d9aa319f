"""How fast a command's output reaches a client: ours and the plain loop by turns, and what is said of it."""

from __future__ import annotations

import time
from typing import Literal

from msgspec import Struct

from coworkd.client.sync import Client
from tests.bench.figures import paired_ratio, spread
from tests.bench.guest import SESSION
from tests.bench.spawning import Pairs
from tests.bench.stream_peer import stream_plainly
from tests.bench.tables import MIB, Verdict, at_least, ratio, table

AT_LEAST = 0.8


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


class Streamed(Struct, frozen=True, kw_only=True):
    """Seconds for `size_bytes`, course by course."""

    size_bytes: int
    courses: dict[str, Pairs]


def measure_courses(client: Client, *, size_bytes: int, pairs: int) -> Streamed:
    measured = {
        course.name: measure_streaming(client, course, size_bytes=size_bytes, pairs=pairs) for course in COURSES
    }
    return Streamed(size_bytes=size_bytes, courses=measured)


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


# -- telling ------------------------------------------------------------------------------------------------------


def judge_streaming(streamed: Streamed) -> list[Verdict]:
    """One stream beside the plain loop, course by course."""
    return [
        at_least(f"one stream × a plain loop ({name})", paired_ratio(pairs.base_s, pairs.other_s), AT_LEAST)
        for name, pairs in streamed.courses.items()
    ]


def compose_streaming_sections(streamed: Streamed) -> list[str]:
    mib = streamed.size_bytes / MIB
    rows = [
        (
            course,
            f"{mib / spread(pairs.base_s).median:.0f} MiB/s",
            f"{mib / spread(pairs.other_s).median:.0f} MiB/s",
            ratio(paired_ratio(pairs.base_s, pairs.other_s)),
        )
        for course, pairs in streamed.courses.items()
    ]
    return [
        f"## {mib:.0f} MiB of stdout to a client",
        "The plain loop is a blocking splice, pread, packb, sendall and an Unpacker at the other end; its producer is in no sandbox. What"
        " it splices to it keeps, as a spool does, or writes over at once, which saves the kernel every new page.",
        table(("", "plain loop", "coworkd", "coworkd / plain"), rows),
    ]
