"""`services.process_forgetting`: who has to go, and what those who read it still get."""

from __future__ import annotations

import pytest

from coworkd.config import FinishedConfig
from coworkd.model import calls
from coworkd.model.errors import LimitExceeded, NotFound
from coworkd.services import process_forgetting
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import FakeLink, House, in_trio, open_house, settle

NAME = calls.ProcessName(process="one")


@in_trio
async def test_one_that_has_to_go_for_newer_ones_leaves_its_readers_the_rest() -> None:
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        other = FakeLink("other")
        for id in ("one", "two"):
            await house.start(id=id)
            if id == "one":
                await house.processes.attach(calls.ProcessAttach(process="one"), other)
            house.launcher.commands[id].write(b"x" * 50_000)
            house.launcher.commands[id].exit(0)
            await house.processes.wait(calls.WaitProcess(process=id))
        with pytest.raises(NotFound):
            await house.processes.get(NAME)
        *output, ended = other.pull()
        assert sum(len(frame.data) for frame in output) == 50_000
        assert ended["process"] == "one"
        await settle()
        assert other.sources == []


async def end_many(house: House, stop: int, start: int = 0) -> None:
    """Commands that put 1,000 bytes out and end, attached and not read."""
    for number in range(start, stop):
        await house.start(id=f"p{number}")
        house.launcher.commands[f"p{number}"].write(b"x" * 1000)
        house.launcher.commands[f"p{number}"].exit(0)
        await house.processes.wait(calls.WaitProcess(process=f"p{number}"))
    await settle()


@in_trio
async def test_no_more_than_some_that_have_to_go_stay_for_those_who_read_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_forgetting, "_PARTING_LIMIT", 2)
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        await end_many(house, 6)
        assert house.processes.spool_memory[0] == 3 * 1000
        got = house.link.pull()
        assert [each["process"] for each in got if isinstance(each, dict) and "exit" in each] == [
            f"p{number}" for number in range(6)
        ]
        gaps = [each for each in got if isinstance(each, dict) and each.get("dropped")]
        assert [(gap["process"], gap["dropped"], gap["offset"], gap["eof"]) for gap in gaps] == [
            (f"p{number}", [0, 1000], 1000, True) for number in range(3)
        ]
        await settle()
        assert house.link.sources == []


@in_trio
async def test_what_is_read_is_kept_over_the_bound_of_bytes_until_it_is_read() -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=2500)) as house:
        await end_many(house, 6)
        assert house.launcher.forgotten == [], "the next coworkd has all that this one has"
        assert await count_kept(house) == 6
        house.link.pull()
        await settle()
        assert sorted(house.launcher.forgotten) == [f"p{number}" for number in range(4)]
        assert await count_kept(house) == 2


@in_trio
async def test_what_is_read_is_kept_over_the_bound_of_bytes_while_there_is_room() -> None:
    async with open_house(finished=FinishedConfig(keep_bytes=2500), total_bytes=4000) as house:
        await end_many(house, 6)
        assert house.launcher.forgotten == ["p0", "p1"]
        assert await count_kept(house) == 4


async def count_kept(house: House) -> int:
    return len((await house.processes.list(calls.ProcessListParams())).processes)


@in_trio
async def test_a_link_that_does_not_even_take_how_commands_ended_is_told_so_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_forgetting, "_PARTING_LIMIT", 2)
    monkeypatch.setattr(process_forgetting, "_TELLING_LIMIT", 4)
    async with open_house(finished=FinishedConfig(keep_count=1)) as house:
        await end_many(house, 5)
        assert house.link.finished is None
        await end_many(house, 6, start=5)
        assert isinstance(house.link.finished, LimitExceeded)
        assert house.link.finished.details["process"] == "p0"


@in_trio
async def test_ended_processes_are_kept_within_bounds() -> None:
    async with open_house(finished=FinishedConfig(keep_count=2)) as house:
        house.launcher.script = FakeCommand.exit
        for name in ("a", "b", "c"):
            await house.start(id=name)
        await settle()
        assert [info.process for info in (await house.processes.list(calls.ProcessListParams())).processes] == [
            "b",
            "c",
        ]
        assert house.launcher.forgotten == ["a"]
