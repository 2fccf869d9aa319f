"""A link cut at every byte of a conversation, either way: what comes of it is what comes of it uncut."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import trio
import trio.testing

from coworkd.model.errors import Unavailable
from tests.conformance.cut_house import Cut, Guest, Way, keep, open_guest

FIRST, SECOND = b"one line\n", b"and another one\n"


class Outcome(NamedTuple):
    """All that a conversation has done, on both sides."""

    said: bytes
    """What the host got of the command, piece after piece."""
    offsets: list[int]
    exit: tuple[int | None, str | None]
    ran: tuple[bytes, int | None]
    counts: dict[str, int]
    given: list[bytes]
    """What each command that ran was given."""
    records: list[str]
    left: list[str]


async def converse(guest: Guest, cut: Cut) -> Outcome:
    """Start, write, read, close, read on, start another, kill it, run a third, list, forget both."""
    try:
        client = await guest.dial(cut)
    except Unavailable:  # cut before hello was answered: there is no link yet to be made again
        client = await guest.dial()
    keep(client, guest)
    process = await client.start("work", ["cat"], stdin=True)
    await process.write_stdin(FIRST)
    said = b""
    offsets: list[int] = []
    while len(said) < len(FIRST):
        piece = await process.read()
        assert piece is not None
        said, offsets = said + piece.data, [*offsets, piece.offset]
    await process.write_stdin(SECOND)
    await process.close_stdin()
    async for piece in process:
        said, offsets = said + piece.data, [*offsets, piece.offset]
    record = await process.wait()
    other = await client.start("work", ["sleep"], stdin=True)
    await other.kill(0)
    killed = await other.wait()
    ran = await client.run("work", ["cat"], input=FIRST)
    listed = [info.process for info in (await client.process_list()).processes]
    assert sorted(listed) == sorted([process.id, other.id])
    await process.forget()
    await other.forget()
    await client.aclose()
    house = guest.house
    return Outcome(
        said=said,
        offsets=sorted(set(offsets)),
        exit=(record.exit.code, killed.exit.signal),
        ran=(ran.stdout, ran.exit.code),
        counts=dict(record.bytes),
        given=sorted(guest.inputs.values()),
        records=sorted(kind for kind in house.audit.kinds if kind.startswith("process.")),
        left=list(house.launcher.commands),
    )


async def outcome_of(cut: Cut) -> tuple[Outcome, int]:
    async with open_guest() as guest:
        return await converse(guest, cut), guest.links


def run(cut_way: Way | None = None, cut_at: int = 0) -> tuple[Outcome, int, Cut]:
    made: list[Cut] = []

    async def main() -> tuple[Outcome, int]:
        made.append(Cut() if cut_way is None else Cut(cut_way, cut_at))
        return await outcome_of(made[0])

    outcome, links = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return outcome, links, made[0]


@pytest.fixture(scope="module")
def uncut() -> tuple[Outcome, Cut]:
    outcome, links, cut = run()
    assert links == 1
    assert outcome.said == FIRST + SECOND
    assert outcome.given == [b"", FIRST, FIRST + SECOND]
    assert outcome.left == []
    return outcome, cut


@pytest.mark.parametrize("way", ["to_guest", "to_host"])
def test_cut_at_any_byte_the_conversation_comes_to_the_same(way: Way, uncut: tuple[Outcome, Cut]) -> None:
    wanted, whole = uncut
    assert whole.seen[way] > 500
    for at in range(whole.seen[way]):
        outcome, links, cut = run(way, at)
        assert links == 2, f"cut at byte {at} of {way}: {links} links"
        assert cut.broken.is_set()
        assert outcome._replace(offsets=[]) == wanted._replace(offsets=[]), f"cut at byte {at} of {way}"
