"""`services.process_adopting`: what the launcher kept, and what it should not have."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from coworkd.model import calls
from coworkd.model.errors import InvalidState, OutOfRange
from coworkd.model.process import Exit
from coworkd.model.restart import Adoption
from coworkd.services import process_adopting
from coworkd.services.process_attach import HOLD_S
from coworkd.services.process_note import decode_note
from tests.unit.services.process_house import PAGE, FakeLink, House, in_trio, jump, open_house, settle

WAIT = calls.WaitProcess(process="one")


async def wait(house: House) -> Exit:
    return (await house.processes.wait(WAIT)).exit


async def kill(house: House, grace_s: float) -> None:
    await house.processes.kill(calls.KillProcess(process="one", grace_s=grace_s))


@in_trio
async def test_process_told_as_lost_is_killed_where_it_lives() -> None:
    async with open_house() as house:
        await house.start()
        house.launcher.reconnect()
        await settle()
        jump(0.6)
        assert (await wait(house)).reason == "lost"
        await settle()
        assert house.launcher.killed == ["one"]
        assert (await wait(house)).reason == "lost"


@in_trio
async def test_many_are_recorded_a_part_at_a_time_so_that_the_log_refuses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_adopting, "_RECORDED_AT_ONCE", 2)
    async with open_house() as house:
        for number in range(5):
            await house.start(id=f"p{number}")
        gate = house.audit.gates["process.adopt"] = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.restart)
            await settle()
            assert house.audit.begun.count("process.adopt") == 2
            gate.set()
        assert house.audit.kinds.count("process.adopt") == 5


# -- the end of a command goes on ----------------------------------------------------------------------------------


@in_trio
async def test_deadline_is_kept_and_not_begun_anew() -> None:
    async with open_house() as house:
        await house.start(timeout_s=10.0)
        jump(6)
        await house.restart()
        jump(3.9)
        await settle()
        assert house.launcher.killed == []
        jump(0.2)
        assert (await wait(house)).reason == "timeout"


@in_trio
async def test_deadline_that_passed_while_coworkd_was_away_ends_it_at_once() -> None:
    async with open_house() as house:
        await house.start(timeout_s=10.0)
        await house.restart(lambda: jump(60))
        assert (await wait(house)).reason == "timeout"


@in_trio
async def test_killing_that_was_begun_is_finished_when_it_was_to_be() -> None:
    async with open_house() as house:
        await house.start()
        await kill(house, 5.0)
        jump(2)
        await house.restart()
        await settle()
        assert (house.command.signals, house.launcher.killed) == ([15], [])
        jump(3.1)
        assert (await wait(house)).reason == "killed"


@in_trio
@pytest.mark.parametrize("reason", ["killed", "timeout"])
async def test_reason_that_was_given_stays_where_it_ends_while_coworkd_is_away(reason: str) -> None:
    async with open_house() as house:
        await house.start(timeout_s=10.0)
        house.command.on_kill = lambda: None
        if reason == "killed":
            await kill(house, 5.0)
        else:
            jump(10.1)
            await settle()
        await house.restart(lambda: house.command.exit(code=0))
        assert await wait(house) == Exit(code=0, signal=None, reason=reason)  # type: ignore[arg-type]


@in_trio
async def test_one_that_ended_is_not_killed_any_more() -> None:
    async with open_house() as house:
        await house.start(timeout_s=10.0)
        await house.restart(lambda: house.command.exit(code=3))
        jump(60)
        await settle()
        assert house.launcher.killed == []
        assert (await wait(house)).reason == "exited"


@in_trio
async def test_end_that_was_recorded_is_not_recorded_or_published_again() -> None:
    async with open_house() as house:
        await house.start()
        house.command.exit(code=3)
        jump(0.6)
        await settle()
        await house.restart()
        await settle()
        assert await wait(house) == Exit(code=3, signal=None, reason="exited")
        assert house.audit.kinds.count("process.exit") == 1
        assert [event.name for event in house.events.published].count("process.exit") == 1


@in_trio
async def test_one_that_turns_out_never_to_have_run_is_let_go() -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        house.launcher.script = lambda command: None
        nursery.start_soon(house.start)
        await settle()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await house.restart()
            assert house.processes.state_counts()["starting"] == 1
            house.command.fail()
            await settle()
            assert house.processes.state_counts() == {"starting": 0, "running": 0, "exited": 0}
            assert "process.start_failed" in house.audit.kinds


@pytest.mark.parametrize("let_in", [True, False])
@in_trio
async def test_one_that_may_have_run_is_lost_with_its_launcher_and_one_that_cannot_have_is_let_go(let_in: bool) -> None:
    async with open_house() as house, trio.open_nursery() as nursery:
        house.launcher.script = lambda command: setattr(command, "let_in", let_in)
        nursery.start_soon(house.start)
        await settle()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await house.restart()
            assert house.processes.state_counts()["starting"] == 1
            house.launcher.lose()
            await settle()
            told = [kind for kind in house.audit.kinds if kind in ("process.exit", "process.start_failed")]
            assert told == ["process.exit" if let_in else "process.start_failed"]


# -- what is noted -------------------------------------------------------------------------------------------------


@in_trio
async def test_second_killing_is_noted_where_it_is_sooner() -> None:
    async with open_house() as house:
        await house.start()
        for grace_s, left_s in ((50.0, 50.0), (5.0, 5.0), (20.0, 5.0)):
            await kill(house, grace_s)
            assert decode_note(house.command.note).kill_at == pytest.approx(left_s)


@in_trio
async def test_what_is_done_when_full_is_kept() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(on_full="block", attach=False)
        await house.restart()
        house.command.write(bytes(64 * PAGE))
        await settle()
        (known,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert known.streams["stdout"] == (0, PAGE)


@in_trio
@pytest.mark.parametrize("note", [b"\xc1", b"\x81\xa3new\x01"])
async def test_note_that_cannot_be_read_loses_no_process(note: bytes) -> None:
    async with open_house() as house:
        await house.start(timeout_s=10.0)
        house.command.note = note
        await house.restart()
        assert house.processes.adoption == Adoption(running=1, unread_notes=1)
        house.command.exit(code=4)
        jump(0.6)
        assert (await wait(house)).code == 4


@in_trio
async def test_what_was_taken_over_is_counted() -> None:
    async with open_house() as house:
        for id in ("one", "two"):
            await house.start(id=id)
        await house.restart(lambda: house.launcher.commands["two"].exit())
        assert house.processes.adoption == Adoption(running=1, ended=1)


@in_trio
async def test_end_that_a_full_disk_refused_is_recorded_by_the_next() -> None:
    async with open_house() as house:
        await house.start()
        house.audit.full.add("process.exit")
        house.command.exit(code=3)
        jump(0.6)
        await settle()
        house.audit.full.clear()
        await house.restart()
        await settle()
        assert house.audit.kinds.count("process.exit") == 1


@in_trio
async def test_input_that_was_closed_is_closed_for_the_next_too() -> None:
    async with open_house() as house:
        await house.start(stdin="pipe")
        await house.processes.write_stdin(calls.WriteStdin(process="one", offset=0, data=b"abc"))
        closing = calls.CloseStdin(process="one", offset=3)
        await house.processes.close_stdin(closing)
        await house.restart()
        await house.processes.close_stdin(closing)  # the answer to the first may have been lost
        with pytest.raises(InvalidState, match="was closed by the caller after 3 bytes"):
            await house.processes.write_stdin(calls.WriteStdin(process="one", offset=3, data=b"d"))
        with pytest.raises(OutOfRange):
            await house.processes.close_stdin(calls.CloseStdin(process="one", offset=4))


# -- those who read it come back -----------------------------------------------------------------------------------

ALL = b"".join(b"%4d " % number for number in range(16 * PAGE // 5))[: 16 * PAGE]


async def kept(house: House) -> tuple[int, int]:
    (known,) = (await house.processes.list(calls.ProcessListParams())).processes
    return known.streams["stdout"]


@in_trio
async def test_whoever_has_read_it_misses_nothing_over_a_restart() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(acknowledge=True)
        house.command.write(ALL[:PAGE])
        await settle()
        assert house.link.pull_bytes() == ALL[:PAGE]  # sent, and nobody knows whether it came
        await house.restart(lambda: house.command.write(ALL[PAGE:]))
        await settle()
        assert await kept(house) == (0, PAGE)
        back = FakeLink("back")
        await house.processes.attach(calls.ProcessAttach(process="one", stdout=100, acknowledge=True), back)
        got = b""
        while more := back.pull_bytes():
            got += more
            await house.processes.ack(calls.ProcessAck(process="one", stdout=100 + len(got)), back)
            await settle()
        assert got == ALL[100:]


@in_trio
async def test_what_it_left_when_it_ended_meanwhile_is_there_for_whoever_has_read_it() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(acknowledge=True)

        def meanwhile() -> None:
            house.command.write(ALL)
            house.command.exit(code=0)

        await house.restart(meanwhile)
        await settle()
        assert await kept(house) == (0, len(ALL))


@in_trio
async def test_places_of_those_who_do_not_come_back_are_let_go() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(acknowledge=True)
        await house.processes.attach(calls.ProcessAttach(process="one", acknowledge=True), FakeLink("second"))
        await settle()
        assert decode_note(house.command.note).readers == 2
        await house.restart(lambda: house.command.write(ALL))
        await settle()
        assert await kept(house) == (0, PAGE)
        jump(HOLD_S + 0.1)
        await settle()
        first, end = await kept(house)
        assert (first > 0, end) == (True, len(ALL))
        assert decode_note(house.command.note).readers == 0


@in_trio
@pytest.mark.parametrize("fields", [{"attach": False}, {}, {"acknowledge": True, "on_full": "drop_oldest"}])
async def test_nobody_is_waited_for_who_does_not_acknowledge_or_need_it(fields: dict[str, Any]) -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(**fields)
        await settle()
        assert decode_note(house.command.note).readers == 0
        await house.restart(lambda: house.command.write(ALL))
        await settle()
        assert (await kept(house))[1] == len(ALL)


@in_trio
async def test_whoever_has_left_is_not_waited_for_over_a_restart() -> None:
    async with open_house(stream_bytes=PAGE) as house:
        await house.start(acknowledge=True)
        await house.processes.detach(calls.ProcessName(process="one"), house.link)
        await settle()
        await house.restart(lambda: house.command.write(ALL))
        await settle()
        assert (await kept(house))[1] == len(ALL)
