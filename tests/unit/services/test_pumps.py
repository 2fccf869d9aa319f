"""`services.pumps`: everything comes over, the end is told once, and a full spool costs nobody a turn."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from coworkd.model.process import OnFull
from coworkd.services.pumps import PASSES, REST_S, PipeWatch, Pump
from coworkd.services.spools import FLOOR_BYTES, PIPE_BYTES, Spool, SpoolBudget
from coworkd.system import spool_file
from tests.unit.services.process_house import PAGE, in_trio, jump, settle
from tests.unit.services.spool_house import put
from tests.unit.services.test_spools import LIMIT, Reader, make_spool, pages


class Rig:
    """A pump between a pipe and a spool, and the pipe's other end."""

    def __init__(self, spool: Spool) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.spool = spool
        self.ended = 0
        self.failed: list[OSError] = []
        self.pump = Pump(self.read_fd, spool, ended=self._end, failed=self.failed.append)

    def _end(self) -> None:
        self.ended += 1

    def write(self, data: bytes) -> int:
        try:
            return os.write(self.write_fd, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.pump.close()
        self.spool.close()
        os.close(self.write_fd)


@contextlib.asynccontextmanager
async def watched(*rigs: Rig) -> AsyncIterator[PipeWatch]:
    """The rigs' pumps at work; closed behind it, and the task of the watch has returned."""
    watch = PipeWatch()
    watch.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.serve)
        for rig in rigs:
            rig.pump.begin(watch)
        yield watch
        for rig in rigs:
            rig.close()
        watch.close()


@contextlib.contextmanager
def unwritable(spool: Spool) -> Iterator[None]:
    """Nothing can be written to its file, as where the disk is full."""
    spool._fd, fd = os.open(f"/proc/self/fd/{spool._fd}", os.O_RDONLY), spool._fd
    try:
        yield
    finally:
        os.close(spool._fd)
        spool._fd = fd


@in_trio
async def test_pump_takes_everything_then_tells_the_end_once() -> None:
    rig = Rig(make_spool())
    reader = Reader()
    rig.spool.follow(reader)
    async with watched(rig):
        rig.write(b"one")
        await settle()
        assert rig.spool.end == 3
        assert reader.told == 1
        rig.write(b"two")
        os.close(rig.write_fd)
        rig.write_fd = os.open("/dev/null", os.O_WRONLY)
        await settle()
        assert (rig.spool.read(0, 10), rig.spool.eof, rig.ended) == ((0, b"onetwo"), True, 1)


@in_trio
async def test_pump_takes_what_is_there_before_any_turn() -> None:
    rig = Rig(make_spool())
    async with watched(rig):
        rig.write(b"now")
        rig.pump.take()
        assert rig.spool.read(0, 10) == (0, b"now")


@in_trio
async def test_pump_leaves_bytes_in_the_pipe_while_a_reader_has_not_come_further() -> None:
    rig = Rig(make_spool())
    reader = Reader()
    rig.spool.follow(reader)
    async with watched(rig):
        written = rig.write(pages(0, 15))
        await settle()
        assert rig.spool.end == LIMIT
        got = b""
        while len(got) < written:
            got += reader.take(rig.spool, PAGE)
            await settle()
        assert got == pages(0, 15)
        assert not rig.spool.lost


@in_trio
async def test_a_full_spool_costs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(make_spool())
    rig.spool.follow(Reader())
    async with watched(rig):
        rig.write(pages(0, 15))
        await settle()
        takes = 0

        def count(pipe_fd: int) -> int:
            nonlocal takes
            takes += 1
            return 0

        monkeypatch.setattr(rig.spool, "fill_from", count)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert takes == 0


@in_trio
async def test_pump_goes_on_when_the_last_reader_leaves() -> None:
    rig = Rig(make_spool())
    reader = Reader()
    rig.spool.follow(reader)
    async with watched(rig):
        rig.write(pages(0, 15))
        await settle()
        rig.spool.unfollow(reader)
        await settle()
        assert rig.spool.end == 15 * PAGE


@in_trio
async def test_pump_that_begins_full_goes_on_when_there_is_room() -> None:
    rig = Rig(make_spool())
    reader = Reader()
    put(rig.spool, pages(0, 4))
    rig.spool.follow(reader)
    rig.write(pages(4, 5))
    async with watched(rig):
        await settle()
        assert rig.spool.end == LIMIT
        reader.take(rig.spool, LIMIT)
        await settle()
        assert rig.spool.end == LIMIT + PAGE


@in_trio
async def test_pump_enlarges_a_pipe_that_was_found_full() -> None:
    rig = Rig(Spool(spool_file.create("test")))
    before = spool_file.pipe_bytes(rig.read_fd)
    async with watched(rig):
        rig.write(b"x" * before)
        await settle()
        assert spool_file.pipe_bytes(rig.read_fd) == PIPE_BYTES


@in_trio
async def test_a_file_that_takes_no_more_cuts_the_spool_and_holds_nobody() -> None:
    rig = Rig(make_spool(on_full="block"))

    async def rest() -> None:
        jump(REST_S)
        await settle()

    async with watched(rig):
        rig.write(b"kept")
        await settle()
        with unwritable(rig.spool):
            rig.write(b"x" * PAGE)
            await rest()
        rig.write(b"y" * PAGE)
        await rest()
        assert len(rig.failed) == 1
        assert (rig.spool.cut_at, rig.spool.end, rig.spool.lost, rig.spool.eof) == (4, 4 + 2 * PAGE, True, False)
        assert rig.spool.read(0, PAGE) == (0, b"kept")
        assert rig.spool.read(4, PAGE) == (4, b"")
        for _ in range(100):
            assert rig.write(b"z" * PAGE) == PAGE
            await rest()
        os.close(rig.write_fd)
        await rest()
        assert rig.ended == 1
        assert rig.spool.read(4, PAGE) == (4 + 102 * PAGE, b"")
        rig.write_fd = os.open("/dev/null", os.O_WRONLY)


@in_trio
async def test_a_pipe_that_cannot_be_read_is_let_go() -> None:
    rig = Rig(make_spool())
    async with watched(rig):
        with unwritable(rig.spool):
            rig.spool.cut()
            rig.spool._null_fd, null_fd = rig.spool._fd, rig.spool._null_fd
            rig.write(b"x")
            await settle()
            rig.spool._null_fd = null_fd
        assert len(rig.failed) == 1
        assert (rig.spool.eof, rig.spool.lost, rig.ended) == (True, True, 0)


@in_trio
async def test_pump_that_cannot_be_watched_says_so_and_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, call: object) -> None:
        raise OSError(28, "No space left on device")

    rig, other = Rig(make_spool()), Rig(make_spool())
    async with watched(other) as watch:
        monkeypatch.setattr(watch, "add", refuse)
        rig.pump.begin(watch)
        assert (len(rig.failed), rig.spool.eof, rig.ended) == (1, True, 0)
    rig.close()


@in_trio
async def test_extend_takes_what_a_full_spool_left_in_the_pipe() -> None:
    rig = Rig(make_spool())
    rig.spool.follow(Reader())
    rig.write(pages(0, 15))
    rig.pump.take()
    assert rig.spool.end == LIMIT
    rig.spool.extend(rig.pump.pipe_bytes())
    rig.pump.take()
    assert rig.spool.end == 15 * PAGE
    assert rig.spool.first == 0
    rig.close()


@in_trio
async def test_extend_takes_it_where_the_budget_has_become_too_small_for_what_is_kept_already() -> None:
    budget = SpoolBudget(2 * PIPE_BYTES)
    rig = Rig(Spool(spool_file.create("test"), limit_bytes=2 * PIPE_BYTES, budget=budget))
    others = [Spool(spool_file.create("other"), budget=budget) for _ in range(31)]
    rig.spool.follow(Reader())
    written = 0
    while taken := rig.write(bytes(PIPE_BYTES)):
        written += taken
        rig.pump.take()
    assert rig.spool.end == 2 * PIPE_BYTES < written
    for other in others:
        put(other, bytes(FLOOR_BYTES))
    rig.spool.extend(rig.pump.pipe_bytes() + 1)
    os.close(rig.write_fd)
    rig.write_fd = os.open("/dev/null", os.O_WRONLY)
    rig.pump.take()
    assert (rig.spool.end, rig.spool.first, rig.spool.eof, rig.ended) == (written, 0, True, 1)
    rig.close()
    for other in others:
        other.close()


@pytest.mark.parametrize("close_twice", [False, True])
@in_trio
async def test_pump_closed_while_it_waits_ends_its_stream_and_tells_nobody(close_twice: bool) -> None:
    rig = Rig(make_spool())
    async with watched(rig):
        await settle()
        rig.pump.close()
        if close_twice:
            rig.pump.close()
        assert rig.spool.eof
        assert rig.ended == 0


@in_trio
async def test_one_pump_that_closes_another_in_its_turn_is_not_called_for_it() -> None:
    first, second = Rig(make_spool()), Rig(make_spool())
    async with watched(first, second):
        first.write(b"x")
        second.write(b"y")
        for one, other in ((first, second), (second, first)):
            one.spool.follow(_Closer(other.pump))
        await settle()
        assert {first.spool.end, second.spool.end} == {0, 1}


class _Closer(Reader):
    """A follower that closes a pump when it is told."""

    def __init__(self, pump: Pump) -> None:
        super().__init__()
        self._pump = pump

    def more(self) -> None:
        self._pump.close()


@in_trio
async def test_floods_nobody_reads_have_their_turns_one_after_the_other() -> None:
    rigs = [Rig(Spool(spool_file.create("flood"), on_full="drop_oldest")) for _ in range(3)]
    for rig in rigs:
        spool_file.set_pipe_bytes(rig.read_fd, PIPE_BYTES)
    read = Rig(make_spool())
    read.spool.follow(Reader())
    async with watched(*rigs, read):
        for turns in (1, 2, 3):
            for rig in rigs:
                while rig.write(b"x" * PIPE_BYTES):
                    pass
            await settle()
            # All had their first turn; then one of them has one each time that REST_S has passed.
            assert sum(rig.spool.end for rig in rigs) == (2 + turns) * PIPE_BYTES
            jump(REST_S)
            await settle()
            read.write(b"read at once")
            await settle()
            assert read.spool.end == 12 * turns


@in_trio
async def test_a_flood_nobody_reads_passes_turns_beside_much_that_is_read() -> None:
    flood = Rig(Spool(spool_file.create("flood"), on_full="drop_oldest"))
    spool_file.set_pipe_bytes(flood.read_fd, PIPE_BYTES)
    read = Rig(Spool(spool_file.create("read"), on_full="drop_oldest"))
    reader = Reader()
    read.spool.follow(reader)
    much = b"x" * spool_file.pipe_bytes(read.read_fd)

    def fill() -> None:
        while flood.write(b"x" * PIPE_BYTES):
            pass

    async def turns(read_of_it: bytes, rests: int) -> int:
        before = flood.spool.end
        for _ in range(rests):
            read.write(read_of_it)
            await settle()
            reader.take(read.spool, PIPE_BYTES)
            jump(REST_S)
            await settle()
            fill()
        return (flood.spool.end - before) // PIPE_BYTES

    async with watched(flood, read):
        fill()
        await settle()
        fill()
        assert await turns(b"", 10) == 10
        assert await turns(much, 2 * (PASSES + 1)) == 2
        assert await turns(b"a word", 10) == 10


@in_trio
async def test_words_nobody_reads_have_one_turn_in_each_rest() -> None:
    rig, read = Rig(make_spool()), Rig(make_spool())
    read.spool.follow(Reader())
    async with watched(rig, read):
        for rest in range(5):
            for words in range(1, 4):
                for each in (rig, read):
                    each.write(b"word")
                await settle()
                assert rig.spool.end == (12 * rest if rest else 4), "the first of all is taken at once"
                assert read.spool.end == 12 * rest + 4 * words
            jump(REST_S)
            await settle()
            assert rig.spool.end == 12 * (rest + 1)


@in_trio
async def test_many_that_say_little_have_their_turns_together() -> None:
    rigs = [Rig(make_spool()) for _ in range(20)]
    async with watched(*rigs):
        for expected in (
            20,
            36,
            56,
        ):  # sixteen make a tick; the four that had to wait come first in the next, with all they have
            for rig in rigs:
                rig.write(b"x")
            if expected > 20:
                jump(REST_S)
            await settle()
            assert sum(rig.spool.end for rig in rigs) == expected


@in_trio
async def test_a_command_that_starts_has_those_that_rest_do_so_longer() -> None:
    rig = Rig(make_spool())
    async with watched(rig) as watch:
        rig.write(b"x")
        await settle()
        rig.write(b"x")
        for _ in range(PASSES):
            watch.others_work()
            jump(REST_S)
            await settle()
            assert rig.spool.end == 1
        watch.others_work()
        jump(REST_S)
        await settle()
        assert rig.spool.end == 2


@pytest.mark.parametrize("on_full", ["drop_oldest", None])
@in_trio
async def test_a_flood_rests_whose_reader_has_stopped_until_he_goes_on(on_full: OnFull | None) -> None:
    """One that waits for him stands still by itself, and has a turn with each of its readings."""
    rig = Rig(Spool(spool_file.create("flood"), on_full=on_full))
    spool_file.set_pipe_bytes(rig.read_fd, PIPE_BYTES)
    reader = Reader()
    rig.spool.follow(reader)

    async def fill() -> int:
        while rig.write(b"x" * PIPE_BYTES):
            pass
        await settle()
        return rig.spool.end // PIPE_BYTES

    async with watched(rig):
        assert await fill() == 1
        assert await fill() == 1
        assert reader.take(rig.spool, PIPE_BYTES)
        assert await fill() == 2


@in_trio
async def test_one_that_rests_goes_on_resting_while_epoll_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """No memory for another watch."""

        def __init__(self, epoll: select.epoll) -> None:
            self.fileno, self.poll, self.unregister, self.close = (
                epoll.fileno,
                epoll.poll,
                epoll.unregister,
                epoll.close,
            )

        def register(self, fd: int, eventmask: int) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    rig = Rig(make_spool())
    async with watched(rig) as watch:
        rig.write(b"word")
        await settle()
        rig.write(b"word")
        with monkeypatch.context() as patch:
            assert watch._epoll is not None
            patch.setattr(watch, "_epoll", Full(watch._epoll))
            for _ in range(3):
                jump(REST_S)
                await settle()
                assert (rig.spool.end, rig.failed) == (4, [])
        jump(REST_S)
        await settle()
        assert rig.spool.end == 8


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM])
@in_trio
async def test_a_pipe_that_cannot_be_made_larger_goes_on_as_it_is(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size_bytes: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spool_file, "set_pipe_bytes", refuse)
    rig = Rig(Spool(spool_file.create("test")))
    async with watched(rig):
        for turns in (1, 2, 3):
            taken = rig.write(b"x" * PIPE_BYTES)
            await settle()
            assert rig.spool.end == turns * taken


@pytest.mark.parametrize("end", [False, True])
@in_trio
async def test_a_flood_that_is_read_or_ends_waits_for_no_turn_of_those_that_rest(end: bool) -> None:
    """Its spool is small, so that one turn does not take all that is in its pipe."""
    rigs = [Rig(Spool(spool_file.create("flood"), limit_bytes=32 * 1024, on_full="drop_oldest")) for _ in range(9)]
    for rig in rigs:
        spool_file.set_pipe_bytes(rig.read_fd, PIPE_BYTES)
        rig.write(b"x" * PIPE_BYTES)
    flood = rigs[-1]
    async with watched(*rigs):
        await settle()
        assert all(0 < rig.spool.end < PIPE_BYTES for rig in rigs), "they do not rest"
        if end:
            flood.pump.take()
        else:
            reader = Reader()
            flood.spool.follow(reader)
            while reader.take(flood.spool, PIPE_BYTES):
                await settle()
        await settle()
        assert [rig.spool.end == PIPE_BYTES for rig in rigs] == [*(8 * [False]), True]


@in_trio
async def test_pipes_take_turns_however_many_flood_theirs() -> None:
    rigs = [Rig(Spool(spool_file.create("flood"), on_full="drop_oldest")) for _ in range(12)]
    data = b"x" * 4096
    async with watched(*rigs):
        for _ in range(12):
            for rig in rigs:
                rig.write(data)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        assert all(rig.spool.end for rig in rigs)


@in_trio
async def test_a_turn_takes_no_more_than_a_full_pipe_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(spool_file.create("flood"), on_full="drop_oldest")
    monkeypatch.setattr(spool_file, "splice", lambda pipe_fd, target_fd, limit_bytes: PIPE_BYTES // 2)
    assert spool.fill_from(-1) == PIPE_BYTES + PIPE_BYTES // 2
    spool.close()
