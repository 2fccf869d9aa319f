"""`services.guarding_channel`: one folder's conversation, from its first word to its last."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio

from coworkd.model.errors import Unavailable
from coworkd.model.folder import Asked, Changed, FolderChange, Withdrawn
from coworkd.services.guarding_channel import Channel
from tests.unit.services.guard_house import FakeFileSystem, settled
from tests.unit.services.process_house import in_trio, jump, open_fds, settle

ASKED = Asked(ask=3, action="delete", path=b"a", pid=7, at=1.0)


class _Ends:
    """A channel with its file system, and what came of it."""

    def __init__(self) -> None:
        self.file_system = FakeFileSystem()
        self.heard: list[object] = []
        self.channel = Channel(
            "bob",
            "f",
            self.file_system.near_fd,
            on_changed=lambda channel, changed: self.heard.append(changed),
            on_asked=lambda channel, asked: self.heard.append(asked),
            on_withdrawn=lambda channel, ask: self.heard.append(ask),
            on_end=lambda channel, reason: self.heard.append(reason),
        )


@contextlib.asynccontextmanager
async def _ends() -> AsyncIterator[_Ends]:
    before = open_fds()
    made = _Ends()
    async with trio.open_nursery() as nursery:
        await nursery.start(made.channel.serve)
        yield made
        nursery.cancel_scope.cancel()
    made.file_system.close()
    assert open_fds() == before


async def _jump_when_asked() -> None:
    await settle()
    jump(5)


@in_trio
async def test_what_it_says_is_handed_on_in_order() -> None:
    changed = Changed(number=1, changes=(FolderChange(change="create", path=b"a"),))
    async with _ends() as ends:
        for message in (changed, ASKED, Withdrawn(ask=3)):
            ends.file_system.say(message)
        await settle()
        assert ends.heard == [changed, ASKED, 3]


@in_trio
async def test_decisions_are_said_in_order_and_nobody_waits() -> None:
    async with _ends() as ends:
        for ask in range(500):
            ends.channel.decide(ask, allow=ask % 2 == 0)
        await settled(ends.file_system, turns=20)
        assert ends.file_system.verdicts == [(ask, ask % 2 == 0) for ask in range(500)]


@in_trio
async def test_a_rule_that_is_not_taken_is_unavailable() -> None:
    async with _ends() as ends:
        ends.file_system.is_mute = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_jump_when_asked)
            with pytest.raises(Unavailable, match="does not answer"):
                await ends.channel.rule("ask", 1.0)


@in_trio
async def test_its_end_is_told_once() -> None:
    async with _ends() as ends:
        ends.file_system.end.close()
        await settle()
        (reason,) = ends.heard
        assert "ended" in str(reason)
        assert not ends.channel.is_there
        assert ends.channel.gone.is_set()
        ends.channel.decide(1, allow=True)


@in_trio
async def test_words_that_are_none_end_it() -> None:
    async with _ends() as ends:
        ends.file_system.end.send(b"\xc1")
        await settle()
        assert "broke off" in str(ends.heard[0])
        assert ends.file_system.is_let_go


@in_trio
async def test_let_go_of_it_refuses_from_then_on_and_is_heard_still() -> None:
    changed = Changed(number=1, changes=())
    async with _ends() as ends:
        ends.channel.let_go()
        await settled(ends.file_system)
        assert [rule.deletes for rule in ends.file_system.rules] == ["deny"]
        for message in (ASKED, Withdrawn(ask=3), changed):
            ends.file_system.say(message)
        await settle()
        assert ends.heard == [changed]
        ends.file_system.end.close()
        await settle()
        assert ends.heard == [changed]


@in_trio
async def test_released_it_reads_no_more() -> None:
    async with _ends() as ends:
        await ends.channel.release()
        assert ends.file_system.is_let_go
        assert ends.heard == []
