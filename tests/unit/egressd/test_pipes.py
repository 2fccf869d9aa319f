from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from coworkd.egressd.pipes import BIG_BYTES, TURN_BYTES, Pipe, PipePool, Share
from coworkd.system import splice


@pytest.fixture
def pool() -> Iterator[PipePool]:
    before = len(os.listdir("/proc/self/fd"))
    opened = PipePool()
    yield opened
    opened.close()
    assert opened.open_count == 0
    assert len(os.listdir("/proc/self/fd")) == before


def hold(pool: PipePool, share: Share, count: int) -> list[Pipe]:
    pipes = []
    for _ in range(count):
        pipe = pool.borrow(share)
        pool.hold(pipe, share)
        pipes.append(pipe)
    return pipes


def drop(pool: PipePool, share: Share, pipes: list[Pipe]) -> None:
    for pipe in pipes:
        pool.let_go(pipe, share)
        pool.give_back(pipe)


def capacity(pipe: Pipe) -> int:
    return os.write(pipe.write, bytes(2 * BIG_BYTES))


def test_one_pipe_serves_all_who_give_it_back(pool: PipePool) -> None:
    for _ in range(100):
        pool.give_back(pool.borrow(Share()))
    assert pool.open_count == 1


def test_a_pipe_is_a_big_one(pool: PipePool) -> None:
    pipe = pool.borrow(Share())
    assert capacity(pipe) == BIG_BYTES
    pool.discard(pipe)


def test_a_session_that_holds_its_share_gets_small_ones(pool: PipePool) -> None:
    stalled, other = Share(), Share()
    pipes = hold(pool, stalled, 40)
    assert [pipe.big for pipe in pipes] == [True] * 16 + [False] * 24
    for share, big in ((stalled, False), (other, True)):
        pipe = pool.borrow(share)
        assert pipe.big is big
        pool.give_back(pipe)
    drop(pool, stalled, pipes)
    assert stalled.big == pool.held_big == 0


def test_stalls_of_many_sessions_leave_big_ones_for_another(pool: PipePool) -> None:
    held = [(share, hold(pool, share, 500)) for share in (Share() for _ in range(4))]
    new = pool.borrow(Share())
    assert new.big
    pool.give_back(new)
    for share, pipes in held:
        drop(pool, share, pipes)


def test_idle_small_ones_are_not_kept_without_bound(pool: PipePool) -> None:
    share = Share()
    drop(pool, share, hold(pool, share, 200))
    assert pool.open_count <= 16 + 32


def test_what_a_rush_has_made_is_closed_again(pool: PipePool) -> None:
    share = Share()
    drop(pool, share, hold(pool, share, 40))
    pool.trim()
    assert pool.open_count == 1
    pool.trim()
    assert pool.open_count == 1


def test_a_discarded_pipe_never_comes_back(pool: PipePool) -> None:
    pipe = pool.borrow(Share())
    os.write(pipe.write, b"of another session")
    pool.discard(pipe)
    fresh = pool.borrow(Share())
    assert splice.readable_bytes(fresh.read) == 0
    pool.give_back(fresh)


def test_without_descriptors_a_pipe_is_an_error(pool: PipePool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    only = pool.borrow(Share())
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        with pytest.raises(OSError, match="open files") as caught:
            pool.borrow(Share())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    pool.give_back(only)


def test_busy_directions_share_a_turn_and_a_lonely_one_has_it_back() -> None:
    share = Share()
    for turn in range(1, 12):
        for _ in range(8):
            share.count(share.allowance(turn))
    assert share.allowance(12) == TURN_BYTES // 8
    for turn in range(13, 20):
        share.count(share.allowance(turn))
    assert share.allowance(20) == TURN_BYTES


def test_slow_directions_are_not_made_slower() -> None:
    share = Share()
    for turn in range(1, 12):
        for _ in range(100):
            share.count(min(1000, share.allowance(turn)))
    assert share.allowance(12) == TURN_BYTES
