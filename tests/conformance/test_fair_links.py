"""What one host or command does to the others, on a clock that stands still: whoever waited for somebody else would never be answered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from coworkd.client.aio import AsyncClient
from coworkd.rpc.turns import GATHER_BYTES
from coworkd.services.spools import PIPE_BYTES, STREAM_LIMIT_BYTES
from tests.conformance.cut_house import Cut, Guest, open_guest
from tests.unit.services.fake_launcher import FakeCommand

Trouble = Callable[[Guest, AsyncClient, Cut, trio.Nursery], Awaitable[None]]


async def flood(command: FakeCommand) -> None:
    """Write whenever there is room, for ever."""
    out = command.leak("stdout")
    try:
        while True:
            await trio.lowlevel.wait_writable(out)
            with contextlib.suppress(BlockingIOError):
                os.write(out, bytes(65536))
    finally:
        os.close(out)


async def stopped_reader(guest: Guest, client: AsyncClient, cut: Cut, nursery: trio.Nursery) -> None:
    """Attached to a command that floods, and takes nothing off its link any more."""
    process = await client.start("work", ["flood"], on_full="block")
    cut.full = True
    nursery.start_soon(flood, guest.house.launcher.commands[process.id])


async def nobody_attached(guest: Guest, client: AsyncClient, cut: Cut, nursery: trio.Nursery) -> None:
    process = await client.start("work", ["flood"], attach=False, on_full="drop_oldest")
    nursery.start_soon(flood, guest.house.launcher.commands[process.id])


async def unread_stdin(guest: Guest, client: AsyncClient, cut: Cut, nursery: trio.Nursery) -> None:
    guest.played = False
    process = await client.start("work", ["sleep"], stdin=True)
    guest.played = True
    nursery.start_soon(process.write_stdin, bytes(8 * 1024 * 1024))


async def stopped_caller(guest: Guest, client: AsyncClient, cut: Cut, nursery: trio.Nursery) -> None:
    """Many answers wait for a host that takes none."""
    process = await client.start("work", ["sleep"], attach=False)
    for _ in range(200):
        nursery.start_soon(process.wait)
    cut.full = True
    guest.house.launcher.commands[process.id].exit(code=0)


@pytest.mark.parametrize("trouble", [stopped_reader, nobody_attached, unread_stdin, stopped_caller])
def test_nobody_waits_for_the_troublemaker(trouble: Trouble) -> None:
    async def main() -> None:
        async with open_guest() as guest, trio.open_nursery() as nursery:
            cut = Cut()
            troubled, client = await guest.dial(cut), await guest.dial()
            await trouble(guest, troubled, cut, nursery)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            for number in range(5):
                ran = await client.run("work", ["cat"], input=b"%d" % number)
                assert ran.stdout == b"%d" % number
            kept = guest.house.processes.spool_bytes
            assert kept <= 2 * STREAM_LIMIT_BYTES + PIPE_BYTES
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock())


def test_two_streams_of_one_link_take_turns_frame_by_frame() -> None:
    async def main() -> None:
        async with open_guest() as guest, trio.open_nursery() as nursery:
            client = await guest.dial()
            one = await client.start("work", ["flood"], on_full="block")
            other = await client.start("work", ["say"], on_full="block")
            nursery.start_soon(flood, guest.house.launcher.commands[one.id])
            read = 0
            while read < 4 * GATHER_BYTES:
                piece = await one.read()
                assert piece is not None
                read += len(piece.data)
            guest.house.launcher.commands[other.id].write(b"a word")
            # Read by nobody but whoever waits for the word: it comes behind what is on its way, and one turn.
            piece = await other.read()
            assert piece is not None
            assert piece.data == b"a word"
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock())
