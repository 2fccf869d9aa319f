from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from coworkd.model import egress as words
from coworkd.model.errors import InternalError, Unavailable
from coworkd.services.egress_link import ANSWER_S, EgressLink
from tests.unit.services.egress_house import Script, event
from tests.unit.services.process_house import in_trio, jump, settle


class Room:
    def __init__(self) -> None:
        self.script = Script()
        self.states: list[str | None] = []
        self.told: list[words.EgressEvent] = []
        self.begun: list[int] = []
        self.pids: list[int] = []
        self.heard_of: list[int] = []
        """The newest pid at each event."""
        self.link = EgressLink(
            self.script.connect,
            begin=lambda: words.Begin(id=0, version="1", filter_bpf=b"12345678", host_uri=""),
            on_pid=self.pids.append,
            on_begun=self._begun,
            on_told=self._hear,
            on_state=self.states.append,
        )

    async def _begun(self, begun: words.Begun) -> None:
        self.begun.append(begun.pid)

    def _hear(self, events: tuple[words.EgressEvent, ...]) -> None:
        self.told.extend(events)
        self.heard_of += [self.pids[-1] for _ in events]


@asynccontextmanager
async def open_room() -> AsyncIterator[Room]:
    room = Room()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.link.serve)
        yield room
        nursery.cancel_scope.cancel()
    if room.script._socket is not None:
        room.script.hang_up()


@in_trio
async def test_nothing_is_asked_before_it_has_begun() -> None:
    async with open_room() as room:
        with pytest.raises(Unavailable):
            await room.link.ask(words.Ping(id=0))
        begin = await room.script.begin(degraded=("no Landlock",))
        await settle()
        assert begin.filter_bpf == b"12345678"
        assert (room.begun, room.states, room.link.pid) == ([77], ["no Landlock"], 77)


@in_trio
async def test_a_refusal_is_an_error_of_ours() -> None:
    async with open_room() as room:
        await room.script.begin()
        await settle()

        async def refuse() -> None:
            request = await room.script.next()
            await room.script.say(words.Refused(id=request.id, message="no filter"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(InternalError, match="no filter"):
                await room.link.ask(words.Ping(id=0))


@in_trio
async def test_it_is_told_and_begun_again_when_it_goes() -> None:
    async with open_room() as room:
        await room.script.begin()
        await room.script.say(words.Told(events=(event(1),)))
        await settle()
        room.script.hang_up()
        await settle()
        assert room.link.pid is None
        assert "is gone" in (room.states[-1] or "")
        jump(1)
        await room.script.begin(pid=78)
        await settle()
        assert (room.begun, room.states[-1], len(room.told)) == ([77, 78], None, 1)


@in_trio
async def test_the_pid_is_known_before_what_comes_right_behind() -> None:
    async with open_room() as room:
        await room.script.begin()
        await room.script.say(words.Told(events=(event(1),)))
        await settle()
        room.script.hang_up()
        await settle()
        jump(1)
        await room.script.begin(pid=78)
        await room.script.say(words.Told(events=(event(1),)))
        await settle()
        assert (room.pids, room.heard_of) == ([77, 78], [77, 78])


@in_trio
async def test_a_request_on_its_way_fails_when_it_goes() -> None:
    async with open_room() as room:
        await room.script.begin()
        await settle()

        async def go() -> None:
            await room.script.next()
            room.script.hang_up()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            with pytest.raises(Unavailable, match="during the call"):
                await room.link.ask(words.Ping(id=0))


@in_trio
async def test_one_that_hangs_counts_as_away_and_holds_nobody_up() -> None:
    async with open_room() as room:
        await room.script.begin()
        await settle()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Unavailable, match="during the call"):
                    await room.link.ask(words.Ping(id=0))

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await room.script.next()
            jump(ANSWER_S + 1)
        assert room.link.pid is None
        with pytest.raises(Unavailable, match="away"):
            await room.link.ask(words.Ping(id=0))
        await settle()
        jump(1)
        room.script.hang_up()
        await room.script.begin(pid=78)
        await settle()
        assert (room.begun[-1], room.states[-1]) == (78, None)


@in_trio
async def test_one_that_does_not_answer_to_begin_is_tried_again() -> None:
    async with open_room() as room:
        await room.script.next()
        jump(ANSWER_S + 1)
        await settle()
        assert "nothing gets out" in (room.states[-1] or "")
        room.script.hang_up()
        jump(1)
        await room.script.begin()
        await settle()
        assert room.link.pid == 77


@in_trio
async def test_one_that_cannot_be_reached_is_told_and_tried_again() -> None:
    room = Room()
    room.script.refuse = OSError(errno.ECONNREFUSED, "Connection refused")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.link.serve)
        await settle()
        assert "cannot be reached" in (room.states[-1] or "")
        room.script.refuse = None
        jump(1)
        await room.script.begin()
        await settle()
        assert room.states[-1] is None
        room.script.hang_up()
        nursery.cancel_scope.cancel()


@in_trio
async def test_one_that_dies_again_and_again_is_started_less_often() -> None:
    async with open_room() as room:

        async def come_and_go(lived_s: float) -> None:
            await room.script.begin()
            await settle()
            jump(lived_s)
            room.script.hang_up()
            await settle()

        async def waits_for(seconds: float) -> None:
            connections = room.script.connections
            jump(seconds - 0.01)
            await settle()
            assert room.script.connections == connections
            jump(0.02)
            await settle()
            assert room.script.connections == connections + 1

        for delay_s in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0):
            await come_and_go(0.0)
            await waits_for(delay_s)
        await come_and_go(6.0)
        await waits_for(0.1)
        await room.script.begin()
        await settle()


@pytest.mark.parametrize("said", [b"\xc1", b"\x83\xa4type\xa7refused\xa2id\x01\xa7message\xa1\x80"])
def test_words_that_are_none_end_the_conversation(said: bytes) -> None:
    """The second is a refusal whose text is no UTF-8."""

    @in_trio
    async def run() -> None:
        async with open_room() as room:
            await room.script.begin()
            assert room.script._socket is not None
            await room.script._socket.send(said)
            await settle()
            assert room.link.pid is None

    run()


@in_trio
async def test_quit_ends_it_for_good() -> None:
    async with open_room() as room:
        await room.script.begin()
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.link.quit)
            await room.script.done(words.Quit)
        room.script.hang_up()
        jump(10)
        await settle()
        assert room.script.connections == 1
