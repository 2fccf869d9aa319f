"""`services.stdin`: offsets, room, and a command that closes or does not read."""

from __future__ import annotations

import hashlib
import os

import pytest
import trio

from coworkd.model.errors import InvalidState, OutOfRange, Unavailable
from coworkd.services.stdin import PATIENCE_S, RECENT_WRITES, PipeSink, Stdin, Tally
from coworkd.system import spool_file
from tests.unit.services.process_house import in_trio, jump, settle


class Rig:
    """A stdin and the command's end of it."""

    def __init__(self, *, offset: int | None = 0, doubtful: bool = False) -> None:
        self.fd, write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        self.write_fd = write_fd
        self.tally_fd = spool_file.create("stdin")
        self.stdin = Stdin("one", PipeSink(write_fd, Tally(self.tally_fd)), offset=offset, doubtful=doubtful)

    def counted(self) -> int | None:
        """What the next coworkd would know."""
        return Tally(self.tally_fd).taken

    def read(self) -> bytes:
        return os.read(self.fd, 1 << 20)

    def stop_reading(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        self.stdin.close()
        if self.fd >= 0:
            os.close(self.fd)


@in_trio
async def test_write_takes_and_tells_the_next_offset() -> None:
    rig = Rig()
    assert await rig.stdin.write(0, b"one") == 3
    assert await rig.stdin.write(3, b"two") == 6
    assert rig.read() == b"onetwo"
    rig.close()


@in_trio
async def test_write_of_known_bytes_is_acknowledged_and_dropped() -> None:
    rig = Rig()
    await rig.stdin.write(0, b"one")
    assert await rig.stdin.write(0, b"one") == 3
    assert await rig.stdin.write(1, b"ne more") == 8
    assert rig.read() == b"one more"
    rig.close()


@in_trio
async def test_write_behind_the_wanted_offset_is_out_of_range() -> None:
    rig = Rig()
    with pytest.raises(OutOfRange) as caught:
        await rig.stdin.write(1, b"x")
    assert caught.value.details["offset"] == 0
    rig.close()


@in_trio
async def test_append_goes_behind_what_others_wrote() -> None:
    rig = Rig()
    await rig.stdin.write(0, b"one")
    assert await rig.stdin.append(b"two") == 3
    assert await rig.stdin.write(6, b"three") == 11
    assert await rig.stdin.append(b"") == 0
    assert rig.read() == b"onetwothree"
    rig.close()


@in_trio
async def test_append_tells_only_of_its_own_bytes_where_somebody_else_has_the_turn() -> None:
    rig = Rig()
    first: list[int] = []
    second: list[int] = []

    async def append(data: bytes, answers: list[int]) -> None:
        answers.append(await rig.stdin.append(data))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, b"x" * 1_000_000, first)
        await settle()
        nursery.start_soon(append, b"y", second)
        await settle()
        jump(PATIENCE_S + 0.1)
    assert 0 < first[0] < 1_000_000
    assert second == [0]
    rig.close()


@in_trio
async def test_append_leaves_an_unknown_offset_unknown() -> None:
    rig = Rig(offset=None)
    assert await rig.stdin.append(b"keys") == 4
    assert rig.stdin.wanted is None
    assert await rig.stdin.write(100, b"!") == 101
    rig.close()


@in_trio
async def test_write_to_a_command_that_does_not_read_answers_with_what_fits() -> None:
    rig = Rig()
    answers = []

    async def write() -> None:
        answers.append(await rig.stdin.write(0, b"x" * 1_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await settle()
        assert answers == []
        jump(PATIENCE_S + 0.1)
    (taken,) = answers
    assert taken == spool_file.pipe_bytes(rig.write_fd) == 256 * 1024
    assert await rig.stdin.write(taken, b"") == taken
    rig.close()


@in_trio
async def test_writes_under_way_together_are_taken_in_order() -> None:
    rig = Rig()
    blocks = [bytes([number]) * 300_000 for number in range(4)]
    got = b""
    async with trio.open_nursery() as nursery:
        for number, block in enumerate(blocks):
            nursery.start_soon(rig.stdin.write, number * 300_000, block)
            await settle()
        while len(got) < 1_200_000:
            got += rig.read()
            await settle()
    assert got == b"".join(blocks)
    rig.close()


@in_trio
async def test_64_mib_go_through_unchanged() -> None:
    rig = Rig()
    block = os.urandom(1 << 20)
    digest, count = hashlib.sha256(), 0

    async def read_all() -> None:
        nonlocal count
        while True:
            await trio.lowlevel.wait_readable(rig.fd)
            data = rig.read()
            if not data:
                return
            digest.update(data)
            count += len(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        offset = 0
        while offset < 64 << 20:
            offset = await rig.stdin.write(offset, block[offset % (1 << 20) :])
        rig.stdin.close()
    assert count == 64 << 20
    assert digest.hexdigest() == hashlib.sha256(block * 64).hexdigest()
    rig.close()


@in_trio
async def test_write_after_the_command_closed_is_told() -> None:
    rig = Rig()
    rig.stop_reading()
    with pytest.raises(InvalidState, match="closed by the command"):
        await rig.stdin.write(0, b"x")
    with pytest.raises(InvalidState, match="closed by the command"):
        await rig.stdin.write(0, b"x")
    rig.close()


@in_trio
async def test_write_waiting_while_stdin_closes_is_told() -> None:
    rig = Rig()

    async def write() -> None:
        with pytest.raises(InvalidState, match="its end"):
            await rig.stdin.write(0, b"x" * 1_000_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await settle()
        rig.stdin.close(by="its end")
    rig.close()


@in_trio
async def test_write_to_what_closed_itself_is_told() -> None:
    """As a terminal does at its end."""
    rig = Rig()
    rig.stdin._sink.close()
    with pytest.raises(InvalidState, match="by the command after 0 bytes"):
        await rig.stdin.write(0, b"too late")
    rig.close()


@in_trio
async def test_feed_ends_where_the_command_closes() -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.stdin.feed, b"x" * 1_000_000)
        await settle()
        rig.stop_reading()
    assert not rig.stdin.open
    rig.close()


@in_trio
async def test_adopted_stdin_takes_its_offset_from_the_first_write() -> None:
    rig = Rig(offset=None)
    assert await rig.stdin.write(1000, b"x") == 1001
    with pytest.raises(OutOfRange):
        await rig.stdin.write(1002, b"x")
    rig.close()


@in_trio
async def test_check_close_wants_exactly_what_was_taken() -> None:
    rig = Rig()
    await rig.stdin.write(0, b"12345")
    rig.stdin.check_close(None)
    rig.stdin.check_close(5)
    for offset in (4, 6):
        with pytest.raises(OutOfRange) as caught:
            rig.stdin.check_close(offset)
        assert caught.value.details["offset"] == 5
    rig.close()


@in_trio
async def test_of_two_writers_at_one_offset_one_has_it_and_the_other_is_told() -> None:
    rig = Rig()
    assert await rig.stdin.write(0, b"one") == 3
    with pytest.raises(OutOfRange, match="another writer") as caught:
        await rig.stdin.write(0, b"two")
    assert caught.value.details["offset"] == 3
    assert await rig.stdin.write(0, b"one") == 3
    assert await rig.stdin.write(0, b"one and more") == 12
    assert rig.read() == b"one and more"
    rig.close()


@in_trio
async def test_a_write_that_did_not_get_its_turn_has_put_nothing_in() -> None:
    rig = Rig()
    room = 256 * 1024  # what the pipe is made to hold for a large write
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.stdin.feed, b"a" * (room + 1))
        await settle()
        answers: list[int] = []

        async def write() -> None:
            answers.append(await rig.stdin.write(room, b"b"))

        nursery.start_soon(write)
        await settle()
        jump(PATIENCE_S)
        await settle()
        assert answers == [room]
        rig.read()
        await settle()
    rig.close()


@in_trio
async def test_what_was_taken_too_long_ago_to_tell_whose_it_was_is_nobodys() -> None:
    rig = Rig()
    for number in range(RECENT_WRITES + 1):
        await rig.stdin.write(number, b"x")
    with pytest.raises(OutOfRange, match="another writer"):
        await rig.stdin.write(0, b"x")
    assert await rig.stdin.write(0, b"") == RECENT_WRITES + 1
    assert await rig.stdin.write(1, b"x") == RECENT_WRITES + 1
    rig.close()


@in_trio
async def test_the_next_coworkd_knows_what_was_taken() -> None:
    rig = Rig()
    await rig.stdin.write(0, b"one")
    assert rig.counted() == 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.stdin.write, 3, bytes(1 << 20))
        await settle()
        held = rig.counted()
        assert held is not None
        assert 3 < held < 1 << 20, "what waits for room is not taken"
        jump(PATIENCE_S + 0.1)
    assert rig.counted() == rig.stdin.wanted
    rig.close()


@in_trio
async def test_a_write_within_which_coworkd_was_killed_is_not_done_twice_in_silence() -> None:
    rig = Rig(offset=None, doubtful=True)
    with pytest.raises(Unavailable, match="not known") as told:
        await rig.stdin.write(3, b"again?")
    assert told.value.details["stage"] == "restarted"
    assert await rig.stdin.write(9, b"on") == 11  # whoever was told says where it goes on
    assert rig.read() == b"on"
    rig.close()


@in_trio
async def test_who_appends_has_nothing_to_do_with_a_write_in_doubt() -> None:
    rig = Rig(offset=None, doubtful=True)
    assert await rig.stdin.append(b"more") == 4
    assert rig.read() == b"more"
    rig.close()


def test_a_tally_that_was_left_within_a_write_does_not_guess() -> None:
    fd = spool_file.create("stdin")
    tally = Tally(fd)
    tally.begin(5)
    assert Tally(fd).taken is None
    tally.end(2)
    assert Tally(fd).taken == 2
    tally.close()
