"""`services.spools`: what is kept, what blocks, what is dropped."""

from __future__ import annotations

import os

from coworkd.services.spools import FLOOR_BYTES, HeadSpool, Spool, SpoolBudget
from coworkd.system import spool_file
from tests.unit.services.process_house import PAGE
from tests.unit.services.spool_house import put

LIMIT = 4 * PAGE
"""A spool of this limit lets go of pages once five are kept."""


class Reader:
    """A follower that moves as the test says."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.told = 0

    def more(self) -> None:
        self.told += 1

    def take(self, spool: Spool, limit: int) -> bytes:
        at, data = spool.read(self.offset, limit)
        self.offset = at + len(data)
        spool.delivered(self.offset)
        return data


def make_spool(**options: object) -> Spool:
    return Spool(spool_file.create("test"), limit_bytes=LIMIT, **options)  # type: ignore[arg-type]


def pages(first: int, last: int) -> bytes:
    """Pages that tell their number."""
    return b"".join(bytes([65 + number % 26]) * PAGE for number in range(first, last))


def test_spool_keeps_at_least_its_limit_and_at_most_an_eighth_or_a_page_more() -> None:
    spool = make_spool()
    for number in range(20):
        put(spool, pages(number, number + 1))
        assert spool.kept_bytes >= min(LIMIT, spool.end)
        assert spool.kept_bytes < LIMIT + PAGE
    assert spool.end == 20 * PAGE
    assert spool.read(spool.first, LIMIT * 2) == (spool.first, pages(spool.first // PAGE, 20))
    spool.close()


def test_read_before_first_begins_at_first() -> None:
    spool = make_spool()
    put(spool, pages(0, 10))
    assert spool.read(0, 3) == (spool.first, pages(6, 7)[:3])
    spool.close()


def test_lost_is_only_what_no_reader_was_given() -> None:
    spool = make_spool()
    put(spool, pages(0, 4))
    reader = Reader()
    spool.follow(reader)
    reader.take(spool, LIMIT)
    put(spool, pages(4, 8))
    assert spool.first > 0
    assert not spool.lost
    spool.unfollow(reader)
    put(spool, pages(8, 20))
    assert spool.lost
    spool.close()


def test_room_without_readers_is_the_limit_however_full() -> None:
    spool = make_spool()
    put(spool, pages(0, 9))
    assert spool.room() == LIMIT
    spool.close()


def test_room_with_readers_is_what_the_slowest_leaves() -> None:
    spool = make_spool()
    slow, fast = Reader(), Reader()
    spool.follow(slow)
    spool.follow(fast)
    put(spool, pages(0, 3))
    fast.take(spool, LIMIT)
    assert spool.room() == PAGE
    slow.take(spool, PAGE)
    assert spool.room() == 2 * PAGE
    spool.close()


def test_block_holds_even_without_readers() -> None:
    spool = make_spool(on_full="block")
    put(spool, pages(0, 4))
    assert spool.room() == 0
    spool.close()


def test_a_reader_that_has_all_there_is_makes_room_by_coming() -> None:
    spool = make_spool(on_full="block")
    put(spool, pages(0, 4))
    told: list[int] = []
    spool.when_room(lambda: told.append(spool.room()))
    spool.follow(Reader(4 * PAGE))
    assert told == [4 * PAGE]
    spool.close()


def test_who_waits_for_room_is_told_once_half_of_it_is_free() -> None:
    spool = make_spool(on_full="block")
    reader = Reader(0)
    spool.follow(reader)
    put(spool, pages(0, 4))
    told: list[int] = []
    spool.when_room(lambda: told.append(spool.room()))
    for _ in range(2):
        assert told == []
        reader.take(spool, PAGE)
    assert told == [2 * PAGE]
    spool.close()


def test_drop_oldest_overtakes_a_reader_which_goes_on_at_first() -> None:
    spool = make_spool(on_full="drop_oldest")
    reader = Reader()
    spool.follow(reader)
    put(spool, pages(0, 10))
    assert spool.lost
    assert reader.take(spool, PAGE) == pages(6, 7)
    assert reader.offset == 7 * PAGE
    spool.close()


def test_adopt_finds_first_and_end() -> None:
    spool = make_spool()
    put(spool, pages(0, 10) + b"tail")
    again = Spool.adopt(os.dup(spool._fd), limit_bytes=LIMIT)
    assert (again.first, again.end) == (spool.first, spool.end)
    assert again.read(10 * PAGE, 10) == (10 * PAGE, b"tail")
    spool.close()
    again.close()


def test_what_an_earlier_coworkd_gave_away_is_not_lost() -> None:
    fd = spool_file.create("test")
    spool_file.append(fd, pages(0, 4))
    adopted = Spool.adopt(fd, limit_bytes=LIMIT, on_full="drop_oldest")
    reader = Reader(4 * PAGE)
    adopted.follow(reader)
    put(adopted, pages(4, 9))
    assert (adopted.first, adopted.lost) == (5 * PAGE, True)
    adopted.close()
    fd = spool_file.create("test")
    spool_file.append(fd, pages(0, 4))
    adopted = Spool.adopt(fd, limit_bytes=LIMIT, on_full="drop_oldest")
    adopted.follow(reader)
    put(adopted, pages(4, 8))
    assert (adopted.first, adopted.lost) == (4 * PAGE, False)
    adopted.close()


def test_head_spool_keeps_the_first_bytes_and_counts_all() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    spool = HeadSpool(spool_file.create("test"), limit_bytes=PAGE, null_fd=null)
    read, write = os.pipe()
    os.write(write, pages(0, 4))
    os.close(write)
    spool.fill_from(read)
    assert spool.read(0, LIMIT) == (0, pages(0, 1))
    assert (spool.total, spool.end, spool.lost, spool.eof) == (4 * PAGE, PAGE, True, True)
    os.close(read)
    os.close(null)
    spool.close()


def test_head_spool_of_exactly_its_limit_loses_nothing() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    spool = HeadSpool(spool_file.create("test"), limit_bytes=PAGE, null_fd=null)
    read, write = os.pipe()
    os.write(write, pages(0, 1))
    os.close(write)
    spool.fill_from(read)
    assert (spool.total, spool.lost, spool.eof) == (PAGE, False, True)
    os.close(read)
    os.close(null)
    spool.close()


def test_a_cut_spool_is_known_to_the_next_coworkd() -> None:
    spool = make_spool()
    put(spool, b"kept")
    spool.cut()
    spool_file.skip(spool._fd, 3 * PAGE)
    spool._advance(3 * PAGE)
    again = Spool.adopt(os.dup(spool._fd), limit_bytes=LIMIT)
    assert (again.first, again.cut_at, again.end, again.lost) == (0, 4, 4 + 3 * PAGE, True)
    again.finish()
    assert again.read(0, PAGE) == (0, b"kept")
    assert again.read(4, PAGE) == (4 + 3 * PAGE, b"")
    again.close()
    spool.close()


def test_spools_together_keep_their_budget() -> None:
    budget = SpoolBudget(64 * FLOOR_BYTES)
    spools = [Spool(spool_file.create("test"), limit_bytes=16 * FLOOR_BYTES, budget=budget) for _ in range(32)]
    for _ in range(40):
        for spool in spools:
            put(spool, b"x" * FLOOR_BYTES)
    kept = sum(spool.kept_bytes for spool in spools)
    assert kept == budget.used_bytes
    # What was kept already before it became tight, an equal part each, and the slack of an eighth.
    assert kept <= budget.limit_bytes * 9 // 8 + 32 * FLOOR_BYTES
    assert min(spool.kept_bytes for spool in spools) >= FLOOR_BYTES
    for spool in spools:
        spool.close()
    assert (budget.used_bytes, budget.spools) == (0, 0)


def test_a_tight_budget_takes_nothing_a_blocked_reader_wants() -> None:
    budget = SpoolBudget(FLOOR_BYTES)
    spool = Spool(spool_file.create("test"), limit_bytes=8 * FLOOR_BYTES, on_full="block", budget=budget)
    other = Spool(spool_file.create("test"), limit_bytes=8 * FLOOR_BYTES, budget=budget)
    reader = Reader()
    spool.follow(reader)
    put(spool, b"a" * FLOOR_BYTES)
    put(other, b"b" * 8 * FLOOR_BYTES)
    assert spool.room() == 0
    assert reader.take(spool, FLOOR_BYTES) == b"a" * FLOOR_BYTES
    assert spool.room() == FLOOR_BYTES
    assert spool.first == 0
    spool.close()
    other.close()


def test_who_follows_a_spool_that_was_closed_finds_its_end_behind_a_gap() -> None:
    spool = make_spool()
    reader = Reader()
    spool.follow(reader)
    put(spool, b"x" * 100)
    told = reader.told
    spool.close()
    assert reader.told == told + 1
    assert (spool.read(reader.offset, LIMIT), spool.eof, spool.kept_bytes, spool.total) == ((100, b""), True, 0, 100)
