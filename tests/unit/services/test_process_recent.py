"""`services.process_recent`: which command it was that is gone."""

from __future__ import annotations

from typing import Any

from coworkd.model.calls import ProcessRun
from coworkd.model.names import OsBytes
from coworkd.model.process import Exit, ExitRecord
from coworkd.services.process_recent import ANCESTOR_S, RecentProcesses
from tests.unit.services.fake_launcher import SPAWNED_AT, FakeCommand
from tests.unit.services.process_house import in_trio, open_house, settle


def _record(process: str, began: float, ended: float, session: str = "bob") -> ExitRecord:
    return ExitRecord(
        process=process,
        session=session,
        exit=Exit(code=0, signal=None, reason="exited"),
        output="complete",
        bytes={},
        rusage=None,
        started_at=began,
        ended_at=ended,
    )


def test_the_only_one_that_ran_then_is_named() -> None:
    recent = RecentProcesses()
    recent.add(_record("one", 10, 20))
    recent.add(_record("other", 30, 40))
    recent.add(_record("foreign", 10, 40, "alice"))
    assert recent.only_one_at("bob", 15, []) == "one"
    assert recent.only_one_at("bob", 25, []) is None
    assert recent.only_one_at("bob", 35, []) == "other"


def test_of_two_that_ran_then_none_is_named() -> None:
    recent = RecentProcesses()
    recent.add(_record("one", 10, 20))
    assert recent.only_one_at("bob", 15, [("agent", 5.0)]) is None
    assert recent.only_one_at("bob", 25, [("agent", 5.0)]) == "agent"
    assert recent.only_one_at("bob", 15, [("later", 16.0)]) == "one"


def test_a_time_before_what_is_remembered_is_not_answered() -> None:
    recent = RecentProcesses(kept=1)
    recent.add(_record("forgotten", 10, 20))
    recent.add(_record("kept", 30, 40))
    assert recent.only_one_at("bob", 15, [("agent", 5.0)]) is None
    assert recent.only_one_at("bob", 35, []) == "kept"


def test_what_stood_above_a_command_is_known_for_a_moment() -> None:
    now = [0.0]
    recent = RecentProcesses(clock=lambda: 21.0, monotonic=lambda: now[0])
    recent.add(_record("one", 10, 20), (50, 49))
    recent.add(_record("never started", 10, 20))
    assert recent.find_by_ancestor(50) == recent.find_by_ancestor(49) == ("bob", "one")
    assert recent.find_by_ancestor(51) is None
    recent.add(_record("two", 20, 21), (50,))
    assert recent.find_by_ancestor(50) == ("bob", "two")
    now[0] = ANCESTOR_S + 1
    assert recent.find_by_ancestor(50) is None


def test_what_stood_above_a_command_is_known_no_longer_where_the_clock_was_set_back() -> None:
    clock, now = [1000.0], [0.0]
    recent = RecentProcesses(clock=lambda: clock[0], monotonic=lambda: now[0])
    recent.add(_record("one", 990, 1000), (50,))
    clock[0], now[0] = 10.0, ANCESTOR_S - 1
    assert recent.find_by_ancestor(50) == ("bob", "one")
    now[0] = ANCESTOR_S + 1
    assert recent.find_by_ancestor(50) is None


def test_what_stood_above_a_command_that_ended_long_before_it_was_adopted_is_not_known() -> None:
    recent = RecentProcesses(clock=lambda: 1000.0)
    recent.add(_record("one", 10, 20), (50,))
    assert recent.find_by_ancestor(50) is None


@in_trio
async def test_a_command_is_known_from_when_it_is_let_in_heard_of_or_not() -> None:
    async with open_house() as house:
        seen: list[tuple[Any, Any, Any]] = []
        at = SPAWNED_AT

        def look() -> None:
            found = house.processes.find_by_ancestor
            seen.append((found(10), found(11), house.processes.only_one_at("work", at)))

        def run(command: FakeCommand) -> None:
            look()
            command.start(quietly=True)
            look()
            command.exit(code=0)

        house.launcher.before_spawn = lambda request: look()
        house.launcher.script = run
        ran = await house.processes.run(ProcessRun(session="work", argv=[OsBytes(b"true")]), house.link)
        assert ran.exit.code == 0
        (whom,) = house.launcher.commands
        mine = ("work", whom)
        assert seen == [(None, None, None), (mine, None, whom), (mine, None, whom)]


@in_trio
async def test_a_command_is_found_by_the_init_of_its_sandbox_and_by_itself_while_it_is_there() -> None:
    async with open_house() as house:
        await house.start()
        assert house.processes.find_by_ancestor(11) == ("work", "one")
        assert house.processes.find_by_ancestor(12) == ("work", "one")
        assert house.processes.find_by_ancestor(13) is None
        house.command.exit(code=0)
        await settle()
        assert house.processes.find_by_ancestor(11) is None  # it has ended long ago, by the clock of these tests
