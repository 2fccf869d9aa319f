"""Joined streams: bytes both ways, ends passed on as ends, and nobody who does not read fills memory."""

from __future__ import annotations

import trio
import trio.testing

from host_stub.egress_relay import Relay


def virtual(main: object) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]


def test_an_end_of_one_side_leaves_the_other_direction_open() -> None:
    async def main() -> None:
        guest, ours = trio.testing.lockstep_stream_pair()
        theirs, server = trio.testing.lockstep_stream_pair()
        relay = Relay(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: relay.run(idle_s=60))
            await guest.send_all(b"question")
            await guest.send_eof()
            assert await server.receive_some(100) == b"question"
            assert await server.receive_some(100) == b""
            await server.send_all(b"answer")
            assert await guest.receive_some(100) == b"answer"
            await server.send_eof()
            assert await guest.receive_some(100) == b""
        assert (relay.up_bytes, relay.down_bytes, relay.ended) == (8, 6, "both ends closed")

    virtual(main)


def test_a_connection_that_breaks_ends_both() -> None:
    async def main() -> None:
        guest, ours = trio.testing.memory_stream_pair()
        theirs, server = trio.testing.memory_stream_pair()
        relay = Relay(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: relay.run(idle_s=60))
            await trio.testing.wait_all_tasks_blocked()
            await server.aclose()
            await guest.send_all(b"to nobody")
        assert relay.ended == "a connection broke"
        await guest.aclose()

    virtual(main)


def test_where_nothing_moves_it_ends_and_what_moves_keeps_it() -> None:
    async def main() -> None:
        guest, ours = trio.testing.memory_stream_pair()
        theirs, _server = trio.testing.memory_stream_pair()
        relay = Relay(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: relay.run(idle_s=60))
            for _ in range(5):
                await trio.sleep(50)
                await guest.send_all(b"x")
        assert trio.current_time() - began == 310
        assert relay.ended == "nothing moved for 60 s"

    began = 0.0

    async def timed() -> None:
        nonlocal began
        began = trio.current_time()
        await main()

    virtual(timed)


def test_a_server_that_does_not_read_holds_the_guest_back() -> None:
    async def main() -> None:
        guest, ours = trio.testing.lockstep_stream_pair()
        theirs, server = trio.testing.lockstep_stream_pair()
        relay = Relay(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: relay.run(idle_s=60))
            with trio.move_on_after(5) as scope:
                for _ in range(10):
                    await guest.send_all(b"x" * 65536)
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
        assert relay.up_bytes == 0
        await server.aclose()

    virtual(main)
