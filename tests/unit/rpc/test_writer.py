from __future__ import annotations

import trio
import trio.testing

from coworkd.rpc.transport import MAX_BUFFERS
from coworkd.rpc.turns import FRAME_BYTES, GATHER_BYTES
from coworkd.rpc.writer import CONTROL_FRAMES, ROOM_BYTES, Writer
from tests.unit.rpc.fakes import BadSource, FakeSource, FakeTransport, run


def make_writer(transport: FakeTransport, overflows: list[None] | None = None) -> Writer:
    told = [] if overflows is None else overflows
    return Writer(transport, name="fake:1", overflowed=lambda: told.append(None))


async def let_through(transport: FakeTransport, sends: int) -> None:
    """So many sends of a stalled transport are taken, and no more."""
    for _ in range(sends):
        transport.go_on()
        transport.stall()
        await trio.testing.wait_all_tasks_blocked()


def test_control_overtakes_data_that_waits() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        writer.attach(FakeSource(2 * GATHER_BYTES))
        async with trio.open_nursery() as nursery:
            transport.stall()
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            writer.put(b"answer")
            transport.go_on()
            await writer.drain()
            nursery.cancel_scope.cancel()
        assert [send[0] == b"answer" for send in transport.sends[:2]] == [False, True]

    run(main)


def test_streams_take_turns_of_a_few_frames_of_64_kib() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        loud, other = FakeSource(50 * FRAME_BYTES, "stdout"), FakeSource(6 * FRAME_BYTES, "stderr")
        writer.attach(loud)
        writer.attach(other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        headers = [bytes(buffer) for send in transport.sends for buffer in send[::2]]
        turns = [False, True, *[False] * 4, *[True] * 2, *[False] * 4, *[True] * 3, *[False] * 4]
        assert [b"stderr" in header for header in headers[: len(turns)]] == turns
        assert set(loud.asked) == {FRAME_BYTES}
        assert (loud.left, other.left) == (0, 0)

    run(main)


def test_who_had_nothing_is_not_asked_and_goes_first_when_it_has_something() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        floods = [FakeSource(100 * GATHER_BYTES) for _ in range(63)]
        quiet = FakeSource(0, "stderr")
        for source in (quiet, *floods):
            writer.attach(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            transport.stall()
            await trio.testing.wait_all_tasks_blocked()
            await let_through(transport, 20)
            assert len(quiet.asked) == 1
            quiet.left = 5
            writer.wake(quiet)
            await let_through(transport, 2)
            nursery.cancel_scope.cancel()
        # What was gathered already, then it.
        assert [b"stderr" in bytes(send[0]) for send in transport.sends[20:]] == [False, True]

    run(main)


class Chatty(FakeSource):
    """Has a word each time that it is woken."""

    def say(self, writer: Writer) -> None:
        self.left = 1
        writer.wake(self)


def test_a_flood_has_its_part_beside_many_who_always_have_a_word() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        flood, many = FakeSource(100 * GATHER_BYTES), [Chatty(0) for _ in range(MAX_BUFFERS)]
        for source in (flood, *many):
            writer.attach(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            transport.stall()
            await trio.testing.wait_all_tasks_blocked()
            before = flood.left
            for _ in range(20):
                for source in many:
                    source.say(writer)
                await let_through(transport, 1)
            nursery.cancel_scope.cancel()
        assert before - flood.left >= 20 * GATHER_BYTES // 2
        assert all(source.asked for source in many)

    run(main)


def test_who_has_something_again_waits_for_no_flood_beside_large_answers() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        quiet, flood = FakeSource(0, "stderr"), FakeSource(100 * GATHER_BYTES)
        writer.attach(quiet)
        writer.attach(flood)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            transport.stall()
            await trio.testing.wait_all_tasks_blocked()
            await let_through(transport, 2)
            quiet.left = 5
            writer.wake(quiet)
            for _ in range(2):
                writer.put(bytes(GATHER_BYTES // 2 + 1))
                await let_through(transport, 1)
            nursery.cancel_scope.cancel()
        assert quiet.left == 0

    run(main)


def test_one_send_gathers_many_frames_without_copies_and_is_bounded() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        writer.attach(FakeSource(3 * GATHER_BYTES))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        sizes = [sum(map(len, send)) for send in transport.sends]
        assert max(sizes) <= GATHER_BYTES + FRAME_BYTES + 100
        assert len(transport.sends) <= 4
        assert all(isinstance(buffer, memoryview) for buffer in transport.sends[0][1::2])

    run(main)


def test_a_stalled_transport_stops_the_pulling() -> None:
    async def main() -> None:
        transport = FakeTransport()
        transport.stall()
        writer = make_writer(transport)
        source = FakeSource(100 * GATHER_BYTES)
        writer.attach(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            assert source.left >= 99 * GATHER_BYTES - FRAME_BYTES
            nursery.cancel_scope.cancel()

    run(main)


def test_wake_makes_an_idle_source_be_asked_again() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        source = FakeSource(0)
        writer.attach(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            source.left = 10
            await trio.testing.wait_all_tasks_blocked()
            assert source.left == 10
            writer.wake(source)
            await trio.testing.wait_all_tasks_blocked()
            assert source.left == 0
            nursery.cancel_scope.cancel()

    run(main)


def test_a_source_that_raises_is_detached_and_the_others_go_on() -> None:
    async def main() -> None:
        transport = FakeTransport()
        writer = make_writer(transport)
        bad, good = BadSource(10), FakeSource(3 * FRAME_BYTES)
        writer.attach(bad)
        writer.attach(good)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        writer.close()
        assert (bad.detachments, good.left, good.detachments) == (1, 0, 1)

    run(main)


def test_sources_hear_of_their_detachment_once() -> None:
    async def main() -> None:
        writer = make_writer(FakeTransport())
        first, second, late = FakeSource(1), FakeSource(1), FakeSource(1)
        writer.attach(first)
        writer.attach(second)
        writer.detach(first)
        writer.detach(first)
        writer.close()
        writer.close()
        writer.attach(late)
        assert (first.detachments, second.detachments, late.detachments) == (1, 1, 1)

    run(main)


def test_too_much_control_overflows_once_and_drops_all() -> None:
    async def main() -> None:
        overflows: list[None] = []
        writer = make_writer(FakeTransport(), overflows)
        for _ in range(CONTROL_FRAMES + 5):
            writer.put(b"x")
        assert len(overflows) == 1
        await writer.drain()

    run(main)


def test_room_is_waited_for_until_the_peer_reads() -> None:
    async def main() -> None:
        transport = FakeTransport()
        transport.stall()
        writer = make_writer(transport)
        writer.put(bytes(ROOM_BYTES))
        had_room = []

        async def wait() -> None:
            await writer.wait_room()
            had_room.append(writer.has_room)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert had_room == []
            nursery.start_soon(writer.run)
            transport.go_on()
            await trio.testing.wait_all_tasks_blocked()
            assert had_room == [True]
            nursery.cancel_scope.cancel()

    run(main)
