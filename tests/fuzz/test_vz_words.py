"""The words of the VZ back end and its process: any bytes give messages or `BrokenWords`, and no descriptor is lost."""

from __future__ import annotations

import itertools
import os

from hypothesis import given
from hypothesis import strategies as st

from host_stub.vz import words

MESSAGES: list[words.Message] = [
    words.Connect(id=1, port=5005),
    words.Kill(id=2),
    words.Release(connection=3),
    words.SetMemory(id=4, target_bytes=1 << 30),
]
REAL = b"".join(words.encode(message) for message in MESSAGES)


def read(pieces: list[bytes], fds: int) -> list[words.Message]:
    """What came; each descriptor that went in is closed at the end, by us or by `Frames`."""
    frames = words.Frames(words.FromBackend)
    given = [os.open("/dev/null", os.O_RDONLY) for _ in range(fds)]
    found: list[words.Message] = []
    try:
        frames.feed(b"", list(given))
        for piece in pieces:
            frames.feed(piece, [])
            while (one := frames.next()) is not None:
                found.append(one[0])
                for fd in one[1]:
                    os.close(fd)
    except words.BrokenWords:
        pass
    frames.close()
    for fd in given:
        try:
            os.fstat(fd)
        except OSError:
            continue
        raise AssertionError(f"descriptor {fd} was lost")
    return found


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 3))
def test_any_bytes_give_messages_or_broken_words(pieces: list[bytes], fds: int) -> None:
    read(pieces, fds)


@given(st.lists(st.integers(0, len(REAL)), max_size=10))
def test_any_chunking_gives_the_same_messages(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(REAL)]
    assert read([REAL[start:end] for start, end in itertools.pairwise(edges)], 0) == MESSAGES


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_a_flipped_byte_loses_nothing_that_came_before(at: int, value: int) -> None:
    changed = REAL[:at] + bytes([value]) + REAL[at + 1 :]
    whole = 0
    for message in MESSAGES:
        if len(words.encode(message)) + sum(len(words.encode(one)) for one in MESSAGES[:whole]) > at:
            break
        whole += 1
    assert read([changed], 0)[:whole] == MESSAGES[:whole]
