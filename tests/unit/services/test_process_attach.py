"""`services.process_attach`: offsets, moving, and what cannot be attached."""

from __future__ import annotations

import contextlib

import pytest
import trio

from coworkd.config import FinishedConfig
from coworkd.model import calls
from coworkd.model.errors import InvalidParams, InvalidState, NotFound, OutOfRange, StartFailed
from coworkd.model.names import OsBytes
from coworkd.services.process_attach import HELD_LIMIT, HOLD_S
from coworkd.services.process_note import decode_note
from tests.unit.services.process_house import PAGE, FakeLink, House, Output, in_trio, jump, open_house, settle

NAME = calls.ProcessName(process="one")


async def attach(house: House, link: FakeLink, **offsets: int) -> calls.ProcessAttached:
    params = calls.ProcessAttach(
        process="one", stdout=offsets.get("stdout"), stderr=offsets.get("stderr"), tty=offsets.get("tty")
    )
    return await house.processes.attach(params, link)


@in_trio
async def test_attach_replays_from_the_offset_without_gap() -> None:
    async with open_house() as house:
        await house.start(attach=False)
        house.command.write(b"0123456789")
        await settle()
        link = FakeLink()
        answer = await attach(house, link, stdout=4)
        assert answer.streams == {"stdout": calls.Range(first=0, end=10), "stderr": calls.Range(first=0, end=0)}
        house.command.write(b"more")
        await settle()
        assert link.pull() == [Output("stdout", 4, b"456789more", False)]


@pytest.mark.parametrize("offset", [0, 4095, 65537])
@in_trio
async def test_attach_outside_what_is_kept_names_the_range_and_keeps_what_was_attached(offset: int) -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(on_full="drop_oldest")
        house.command.write(b"x" * 65536)
        await settle()
        before = list(house.link.sources)
        with pytest.raises(OutOfRange) as caught:
            await attach(house, house.link, stdout=offset)
        details = caught.value.details
        assert (details["stream"], details["first"], details["end"]) == ("stdout", 65536 - PAGE, 65536)
        assert house.link.sources == before


@pytest.mark.parametrize("runs", [True, False])
@in_trio
async def test_one_that_is_being_started_is_waited_for(runs: bool) -> None:
    link = FakeLink()
    attached: list[calls.ProcessAttached] = []

    async def come(house: House) -> None:
        if runs:
            attached.append(await attach(house, link))
            return
        with pytest.raises(NotFound, match="could not be started"):
            await attach(house, link)

    async def start(house: House) -> None:
        with contextlib.nullcontext() if runs else pytest.raises(StartFailed):
            await house.start(attach=False)

    async with open_house() as house:
        house.launcher.script = lambda command: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, house)
            await settle()
            nursery.start_soon(come, house)
            await settle()
            assert (attached, link.sources) == ([], [])
            house.command.start() if runs else house.command.fail()
        assert (len(attached), len(link.sources)) == ((1, 1) if runs else (0, 0))


@in_trio
async def test_attach_without_offsets_begins_at_first() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(attach=False)
        house.command.write(b"x" * 65536)
        await settle()
        link = FakeLink()
        await attach(house, link)
        assert link.pull() == [Output("stdout", 65536 - PAGE, b"x" * PAGE, False)]


@in_trio
async def test_attach_again_moves_the_link() -> None:
    async with open_house() as house:
        await house.start()
        house.command.write(b"0123")
        await settle()
        assert house.link.pull_bytes() == b"0123"
        await attach(house, house.link, stdout=2)
        assert len(house.link.sources) == 1
        assert house.link.pull_bytes() == b"23"


@in_trio
async def test_attach_after_the_exit_brings_output_then_the_exit() -> None:
    async with open_house() as house:
        await house.start(attach=False)
        house.command.write(b"all")
        house.command.exit(0)
        link = FakeLink()
        await attach(house, link)
        got = link.pull()
        assert got[0] == Output("stdout", 0, b"all", True)
        assert got[-1]["output"] == "complete"
        await settle()


@in_trio
async def test_attach_after_a_lost_link_loses_nothing() -> None:
    async with open_house(stream_bytes=PAGE * 4) as house:
        await house.start(on_full="block")
        written = house.command.write(b"".join(bytes([65 + n]) * PAGE for n in range(15)))
        await settle()
        first = house.link.pull(frames=1, limit_bytes=PAGE)
        house.link.close()
        await settle()
        link = FakeLink("again")
        await attach(house, link, stdout=PAGE)
        got = first[0].data
        while len(got) < written:
            got += link.pull_bytes()
            await settle()
        assert got == b"".join(bytes([65 + n]) * PAGE for n in range(15))


@in_trio
async def test_attach_to_a_stream_it_has_not_is_refused() -> None:
    async with open_house() as house:
        await house.start()
        with pytest.raises(InvalidParams) as caught:
            await attach(house, FakeLink(), tty=0)
        assert caught.value.details["key"] == "tty"


@in_trio
async def test_attach_to_a_one_shot_is_refused() -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.processes.run, calls.ProcessRun(session="work", argv=[OsBytes(b"cat")]), house.link)
        await settle()
        (one_shot,) = house.launcher.commands
        with pytest.raises(InvalidState, match=r"process\.run"):
            await house.processes.attach(calls.ProcessAttach(process=one_shot), house.link)
        house.command.exit(0)


@in_trio
async def test_detach_stops_the_link_and_lets_the_command_go_on() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start()
        house.command.write(b"x" * 65536)
        await settle()
        await house.processes.detach(NAME, house.link)
        await settle()
        assert house.link.sources == []
        assert (await house.processes.get(NAME)).streams["stdout"][1] == 65536
        await house.processes.detach(NAME, house.link)


@in_trio
async def test_attach_to_an_unknown_process_is_not_found() -> None:
    async with open_house() as house:
        with pytest.raises(NotFound):
            await attach(house, house.link)


@in_trio
async def test_what_was_not_acknowledged_is_kept() -> None:
    async with open_house(stream_bytes=16 * PAGE) as house:
        await house.start(acknowledge=True)
        house.command.write(b"a" * 16 * PAGE)
        await settle()
        assert len(house.link.pull_bytes()) == 16 * PAGE
        house.command.write(b"b" * 8 * PAGE)
        await settle()
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert info.streams["stdout"] == (0, 16 * PAGE)
        await house.processes.ack(calls.ProcessAck(process="one", stdout=8 * PAGE), house.link)
        await settle()
        assert house.link.pull_bytes() == b"b" * 8 * PAGE
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert info.streams["stdout"][1] == 24 * PAGE
        assert info.streams["stdout"][0] <= 8 * PAGE
        with pytest.raises(OutOfRange):
            await house.processes.ack(calls.ProcessAck(process="one", stdout=25 * PAGE), house.link)


@in_trio
async def test_so_many_places_are_held_and_no_more() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(attach=False)
        await settle()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3 * HELD_LIMIT):
            link = FakeLink()
            params = calls.ProcessAttach(process="one", stdout=0, stderr=0, acknowledge=True)
            await house.processes.attach(params, link)
            house.command.write(b"x")
            await settle()
            link.pull()
            await house.processes.ack(calls.ProcessAck(process="one", stdout=1), link)
            link.detach(link.sources[0])
        await settle()
        assert decode_note(house.command.note).readers == HELD_LIMIT
        assert trio.lowlevel.current_statistics().tasks_living - tasks == HELD_LIMIT


@in_trio
async def test_a_place_is_held_for_a_host_that_comes_back() -> None:
    async with open_house(stream_bytes=16 * PAGE) as house:
        await house.start(acknowledge=True)
        house.command.write(b"a" * 8 * PAGE)
        await settle()
        house.link.pull()
        house.link.close()
        for _ in range(4):
            house.command.write(b"b" * 8 * PAGE)
            await settle()
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert info.streams["stdout"] == (0, 16 * PAGE)
        back = FakeLink("back")
        await house.processes.attach(
            calls.ProcessAttach(process="one", stdout=4 * PAGE, stderr=0, acknowledge=True), back
        )
        said = back.pull_bytes()
        assert said == b"a" * 4 * PAGE + b"b" * 8 * PAGE
        await house.processes.ack(calls.ProcessAck(process="one", stdout=16 * PAGE), back)
        await settle()
        assert back.pull_bytes().startswith(b"b" * 8 * PAGE)


@in_trio
async def test_a_place_is_not_held_for_ever_nor_for_one_that_left() -> None:
    async with open_house(stream_bytes=16 * PAGE) as house:
        await house.start(acknowledge=True)
        house.link.close()
        house.command.write(b"a" * 16 * PAGE)
        await settle()
        jump(HOLD_S)
        await settle()
        house.command.write(b"b" * 16 * PAGE)
        await settle()
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert info.streams["stdout"][1] == 32 * PAGE
        other = FakeLink("other")
        await house.processes.attach(calls.ProcessAttach(process="one", acknowledge=True), other)
        await house.processes.detach(calls.ProcessName(process="one"), other)
        other.close()
        house.command.write(b"c" * 16 * PAGE)
        await settle()
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert info.streams["stdout"][1] == 48 * PAGE


@pytest.mark.parametrize("restarted", [False, True])
@in_trio
async def test_one_that_ended_and_may_be_come_back_for_is_not_surplus_before_that_is_over(restarted: bool) -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=0)) as house:
        await house.start(acknowledge=True)
        house.command.write(b"x" * PAGE)
        house.command.exit(0)
        await house.processes.wait(calls.WaitProcess(process="one"))
        if restarted:
            await house.restart()
        else:
            house.link.close()
        await house.start(id="two", attach=False)
        house.launcher.commands["two"].exit(0)
        await house.processes.wait(calls.WaitProcess(process="two"))
        await settle()
        assert house.launcher.forgotten == []
        link = FakeLink()
        await house.processes.attach(calls.ProcessAttach(process="one", stdout=0, acknowledge=True), link)
        jump(HOLD_S)
        await settle()
        assert house.launcher.forgotten == []
        link.pull()
        await settle()
        assert house.launcher.forgotten == ["one"]


@in_trio
async def test_one_that_ended_and_was_not_come_back_for_is_surplus() -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=0)) as house:
        await house.start(acknowledge=True)
        house.command.write(b"x" * PAGE)
        house.command.exit(0)
        await house.processes.wait(calls.WaitProcess(process="one"))
        house.link.close()
        await house.start(id="two", attach=False)
        house.launcher.commands["two"].exit(0)
        await house.processes.wait(calls.WaitProcess(process="two"))
        jump(HOLD_S)
        await settle()
        assert house.launcher.forgotten == ["one"]
