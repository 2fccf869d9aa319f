"""`services.process_starting`: the straight line, what is recorded on it, and what stops it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from coworkd.auditlog import admit
from coworkd.model import calls
from coworkd.model.errors import (
    CoworkError,
    DiskFailed,
    InvalidParams,
    NotFound,
    PolicyDenied,
    SandboxSetupFailed,
    StartFailed,
    Unavailable,
)
from coworkd.model.launch import Spawn
from coworkd.model.names import OsBytes
from coworkd.model.policy import EffectivePolicy, LimitsRequest
from coworkd.model.process import Exit, ProcessSpec, TtySize
from coworkd.model.session import SessionView
from tests.unit.services.fake_launcher import FakeCommand
from tests.unit.services.process_house import House, in_trio, open_house, settle

RUN = calls.ProcessRun(session="work", argv=[OsBytes(b"cat")])
LOST = Exit(code=None, signal=None, reason="lost")


async def assert_nothing_is_left(house: House) -> None:
    await settle()
    assert house.launcher.commands == {}
    assert house.launcher.watched == set()
    assert house.processes.state_counts() == {"starting": 0, "running": 0, "exited": 0}
    assert house.processes.start_errors_total == 1
    house.launcher.refusal = house.sessions.error = house.policies.error = None
    house.audit.full = set()
    await house.start()


@in_trio
async def test_start_is_durable_before_the_command_runs_and_under_way_while_the_sandbox_is_made() -> None:
    async with open_house() as house:
        seen: list[tuple[str, list[str]]] = []
        house.launcher.before_spawn = lambda request: seen.append(("asked", house.audit.begun))
        house.launcher.before_exec = lambda process: seen.append(("let in", house.audit.kinds))
        await house.start()
        assert seen == [("asked", ["process.start"]), ("let in", ["process.start"])]


@in_trio
async def test_a_command_is_let_in_once() -> None:
    async with open_house() as house:
        let_in: list[str] = []
        house.launcher.before_exec = let_in.append
        await house.start()
        assert let_in == ["one"]


@in_trio
async def test_start_record_says_what_and_never_values_of_the_environment() -> None:
    async with open_house() as house:
        await house.start(env={"TOKEN": "secret"}, timeout_s=9.0, stdin="pipe")
        fields = house.audit.fields("process.start")
        assert fields["env_names"] == ["TOKEN"]
        assert (fields["argv"], fields["uid"], fields["link"], fields["timeout_s"]) == ((b"cat",), 1001, "link", 9.0)
        assert "secret" not in repr(fields)


@in_trio
async def test_every_record_is_one_the_audit_log_admits() -> None:
    async with open_house() as house:
        await house.start(timeout_s=9.0)
        house.command.write(b"x")
        await house.restart()
        house.command.exit(0)
        house.launcher.script = lambda command: command.fail()
        with pytest.raises(StartFailed):
            await house.start(id="two")
        house.policies.error = PolicyDenied("no", rule="x")
        with pytest.raises(PolicyDenied):
            await house.start(id="three")
        await settle()
        assert set(house.audit.kinds) == {
            *("process.start", "process.adopt", "process.exit", "process.start_failed", "process.denied")
        }
        for kind, fields in house.audit.records:
            admit(kind, fields)


@pytest.mark.parametrize("fields", [{}, {"tty": TtySize(rows=2, cols=2)}, {"stdin": "pipe"}])
@in_trio
async def test_log_that_refuses_stops_the_start(fields: dict[str, Any]) -> None:
    async with open_house() as house:
        house.audit.full = {"process.start"}
        house.launcher.before_exec = lambda process: pytest.fail("let in without a record")
        with pytest.raises(DiskFailed):
            await house.start(**fields)
        assert house.launcher.abandoned == ["one"]
        house.launcher.before_exec = lambda process: None
        await assert_nothing_is_left(house)


@in_trio
async def test_one_that_is_killed_while_its_record_is_written_never_runs() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: pytest.fail("it ran")
        gate = house.audit.gates["process.start"] = trio.Event()
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(StartFailed):
                    await house.start()

            nursery.start_soon(start)
            await settle()
            house.command.on_kill = house.command.fail
            await house.processes.kill(calls.KillProcess(process="one", grace_s=0))
            gate.set()
        house.launcher.script = FakeCommand.start
        await assert_nothing_is_left(house)


@pytest.mark.parametrize("error", [SandboxSetupFailed("no", stage="netns"), Unavailable("gone")])
@in_trio
async def test_launcher_that_refuses_is_recorded(error: CoworkError) -> None:
    async with open_house() as house:
        house.launcher.refusal = error
        with pytest.raises(type(error)):
            await house.start()
        assert house.audit.kinds == ["process.start", "process.start_failed"]
        await assert_nothing_is_left(house)


@in_trio
async def test_policy_that_denies_is_recorded_and_nothing_starts() -> None:
    async with open_house() as house:
        house.policies.error = PolicyDenied("profile x is not allowed")
        with pytest.raises(PolicyDenied):
            await house.start()
        assert house.audit.fields("process.denied")["message"] == "profile x is not allowed"
        await assert_nothing_is_left(house)


@in_trio
async def test_session_that_is_not_there_is_not_recorded() -> None:
    async with open_house() as house:
        house.sessions.error = NotFound("no session")
        with pytest.raises(NotFound):
            await house.start()
        assert house.audit.records == []
        await assert_nothing_is_left(house)


@pytest.mark.parametrize(
    ("error", "kinds"), [(StartFailed("big", stage="too_big"), ["process.start_failed"]), (InvalidParams("bad"), [])]
)
@in_trio
async def test_plan_that_cannot_be_made_stops_the_start(error: CoworkError, kinds: list[str]) -> None:
    async with open_house() as house:
        good = house.compose

        def refuse(spec: ProcessSpec, session: SessionView, policy: EffectivePolicy) -> Spawn:
            raise error

        house.compose = refuse
        with pytest.raises(type(error)):
            await house.start()
        assert house.audit.kinds == kinds
        house.compose = good
        await assert_nothing_is_left(house)


@in_trio
async def test_limits_and_profile_of_the_session_hold_for_its_processes() -> None:
    async with open_house() as house:
        house.sessions.limits = LimitsRequest(memory_max=100)
        started = await house.start(limits=LimitsRequest(memory_max=200, pids_max=3))
        assert house.policies.asked == [("default", LimitsRequest(memory_max=100, pids_max=3))]
        assert started.narrowed == (
            "from the policy",
            "limits.memory_max: 200 was asked, the session has 100",
        )
        await house.start(id="two", profile="strict")
        assert house.policies.asked[1][0] == "strict"


@in_trio
async def test_a_timeout_the_policy_cuts_is_told() -> None:
    async with open_house() as house:
        house.policies.timeout_s = 5.0
        started = await house.start(timeout_s=9.0)
        assert house.audit.fields("process.start")["timeout_s"] == 5.0
        assert any("limits.timeout_s" in sentence and "5 s" in sentence for sentence in started.narrowed)


@in_trio
async def test_a_start_that_is_cut_off_has_its_end_in_the_log() -> None:
    """Without that the next coworkd would tell it as lost."""
    async with open_house() as house:
        house.launcher.script = lambda command: None
        gate = house.audit.gates["process.start"] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.start)
            await settle()
            nursery.cancel_scope.cancel()
            gate.set()
        assert house.launcher.abandoned == ["one"]
        assert house.audit.kinds == ["process.start", "process.start_failed"]
        assert "cut off" in house.audit.fields("process.start_failed")["message"]


@in_trio
async def test_a_launcher_that_is_lost_before_the_gate_was_opened_is_unavailable_since_nothing_ran() -> None:
    async with open_house() as house:
        house.audit.gates["process.start"] = trio.Event()

        async def refused(start: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(Unavailable):
                await start()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, partial(house.processes.run, RUN, house.link))
            nursery.start_soon(refused, house.start)
            await settle()
            house.launcher.lose()
            house.audit.gates["process.start"].set()
        await settle()
        assert sorted(house.audit.kinds) == ["process.start"] * 2 + ["process.start_failed"] * 2


@in_trio
async def test_a_launcher_that_is_lost_behind_the_gate_may_have_run_it_and_has_lost_it() -> None:
    async with open_house() as house:
        house.launcher.script = lambda command: house.launcher.lose()
        assert (await house.processes.run(RUN, house.link)).exit == LOST
        await settle()
        assert house.audit.kinds == ["process.start", "process.exit"]
    async with open_house() as house:
        house.launcher.script = lambda command: house.launcher.lose()
        assert (await house.start()).pid == 0
        assert (await house.processes.wait(calls.WaitProcess(process="one"))).exit == LOST
        await settle()
        assert house.audit.kinds == ["process.start", "process.exit"]
        assert [event.name for event in house.events.published] == ["process.start", "process.exit"]
