"""Machines over a back end and a guest that do what the test says."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from host_stub.machine import STOP_BUDGET_S, Machine
from host_stub.machine_life import HUNG_S, LOST_S, RESTARTS
from host_stub.words import GuestNews, MachineState, Trouble
from tests.unit.host_stub.machine_lab import open_lab, play


def trouble(code: str) -> Trouble:
    return Trouble(code, f"there is {code}", remedy="mend it")


def test_a_good_life_and_a_graceful_end() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            assert lab.machine.is_running
            lab.guest.connect()
            lab.guest.ready()
            lab.guest.refusal = None
            lab.guest.on_shutdown = lab.running.end
            await lab.machine.stop(budget_s=20, reason="test")
            assert lab.states == ["starting", "connected", "ready", "stopping", "stopped"]
            assert lab.guest.asked == [(15.0, "test")]
            assert lab.running.asked == []
            assert (lab.machine.is_running, lab.machine.is_over, lab.machine.pid) == (False, True, None)

    play(main)


def test_a_guest_is_adopted_however_late() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            await trio.sleep(4 * 3600)
            assert lab.machine.state is MachineState.STARTING
            assert lab.said("progress")[-1].endswith("its serial console says: last words")
            lab.guest.connect()
            lab.guest.ready(share="gone")
            assert lab.states == ["starting", "connected", "degraded"]
            assert lab.running.asked == []

    play(main)


@pytest.mark.parametrize(("how", "after"), [("failed", "nothing"), ("panicked", "connect"), ("killed", "ready")])
def test_a_machine_that_dies_has_crashed_with_its_last_lines(how: str, after: str) -> None:
    async def main() -> None:
        async with open_lab() as lab:
            if after != "nothing":
                getattr(lab.guest, after)()
            lab.running.end(how, "why")
            await lab.until(MachineState.CRASHED)
            event = lab.events.after(0)[0][-1]
            assert event.details["serial"] == ["Linux version 6", "last words"]
            assert "last words" in event.message
            assert len(lab.backend.lives) == 1
            await trio.testing.wait_all_tasks_blocked()
            assert lab.machine.is_over

    play(main)


def test_a_guest_that_powers_off_has_stopped() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.running.end("powered_off")
            await lab.until(MachineState.STOPPED)
            assert "powered itself off" in lab.said()[-1]

    play(main)


def test_a_hung_guest_is_started_again() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.guest.tell(GuestNews(kind="hung", message="nothing for 20 s"))
            assert lab.machine.state is MachineState.HUNG
            await trio.sleep(HUNG_S + 5)
            assert [running.asked for running in lab.backend.lives] == [["kill"], []]
            assert (lab.machine.restarts, lab.prepared, lab.machine.state) == (1, 2, MachineState.STARTING)
            lab.guest.ready()
            assert lab.states[-1] == "ready"

    play(main)


def test_a_guest_that_answers_in_time_is_left_alone() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            for _ in range(5):
                lab.guest.tell(GuestNews(kind="hung", message="nothing"))
                await trio.sleep(HUNG_S - 5)
                lab.guest.tell(GuestNews(kind="answering", message="again"))
                await trio.sleep(HUNG_S)
            assert len(lab.backend.lives) == 1
            assert lab.states[-1] == "ready"

    play(main)


def test_a_guest_that_the_host_has_no_room_for_is_told_and_not_ended() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.backend.lives[0].halted = "the host could not write its disk: no space"
            await trio.sleep(15)
            lab.guest.tell(GuestNews(kind="hung", message="nothing for 20 s"))
            await trio.sleep(HUNG_S * 4)
            assert len(lab.backend.lives) == 1
            assert [said for said in lab.said("trouble") if "no space" in said] == lab.said("trouble")[-1:]
            assert "no space" in str(lab.machine.halted)
            lab.backend.lives[0].halted = None
            await trio.sleep(HUNG_S - 5)
            assert lab.said("trouble")[-1] == "the guest goes on"
            assert len(lab.backend.lives) == 1
            await trio.sleep(10)
            assert len(lab.backend.lives) == 2  # it goes on, and does not answer all the same

    play(main)


def test_what_a_machine_goes_on_without_is_told_once() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.backend.lives[0].lost = "virtiofsd of /share ended with -9"
            await trio.sleep(10)
            assert [said for said in lab.said("trouble") if "virtiofsd" in said] == [
                "virtiofsd of /share ended with -9: the guest has that no more until cowork-vm restart"
            ]
            assert lab.machine.state is MachineState.READY

    play(main)


def test_a_link_that_never_comes_again_is_a_hung_guest() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.guest.tell(GuestNews(kind="lost", message="closed"))
            await trio.sleep(LOST_S + 2)
            assert lab.machine.state is MachineState.HUNG
            await trio.sleep(HUNG_S + 2)
            assert len(lab.backend.lives) == 2

    play(main)


def test_a_guest_that_hangs_again_and_again_is_given_up() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            for _ in range(RESTARTS + 1):
                lab.guest.ready()
                lab.guest.tell(GuestNews(kind="hung", message="nothing"))
                await trio.sleep(HUNG_S + 5)
            assert len(lab.backend.lives) == RESTARTS + 1
            assert lab.machine.state is MachineState.CRASHED
            assert lab.machine.is_over

    play(main)


def test_a_guest_that_resets_itself_is_started_again_unless_never() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.running.end("reset")
            await trio.sleep(1)
            assert len(lab.backend.lives) == 2
        async with open_lab(restart="never") as lab:
            lab.running.end("reset")
            await lab.until(MachineState.CRASHED)

    play(main)


def test_never_leaves_a_hung_guest_running() -> None:
    async def main() -> None:
        async with open_lab(restart="never") as lab:
            lab.guest.ready()
            lab.guest.tell(GuestNews(kind="hung", message="nothing"))
            await trio.sleep(100 * HUNG_S)
            assert (lab.machine.state, lab.running.asked) == (MachineState.HUNG, [])

    play(main)


def test_always_starts_a_crashed_guest_again_but_not_for_ever() -> None:
    async def main() -> None:
        async with open_lab(restart="always") as lab:
            for _ in range(RESTARTS + 1):
                lab.running.end("panicked")
                await trio.sleep(1)
            assert (len(lab.backend.lives), lab.machine.state) == (RESTARTS + 1, MachineState.CRASHED)

    play(main)


def test_a_stop_presses_the_button_where_coworkd_was_never_heard_of() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            await lab.machine.stop()
            assert (lab.running.asked, lab.states[-1]) == (["button"], "stopped")

    play(main)


def test_a_stop_presses_the_button_where_coworkd_refuses() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            await lab.machine.stop()
            assert (len(lab.guest.asked), lab.running.asked) == (1, ["button"])
            assert "no link" in lab.said("progress")

    play(main)


def test_a_stop_kills_what_heeds_nothing_when_the_budget_is_over() -> None:
    async def main() -> None:
        async with open_lab(start=False) as lab, trio.open_nursery() as nursery:
            lab.backend.heeds_button = False
            await nursery.start(lab.run)
            await trio.testing.wait_all_tasks_blocked()
            lab.guest.ready()
            lab.guest.refusal = None  # it says that it will, and does not
            began = trio.current_time()
            await lab.machine.stop()
            assert trio.current_time() - began == pytest.approx(STOP_BUDGET_S)
            assert lab.running.asked == ["button", "kill"]
            assert lab.machine.state is MachineState.STOPPED

    play(main)


def test_a_link_that_comes_again_in_time_ends_it_gracefully() -> None:
    """A guest without a power button whose coworkd starts again just then."""

    async def main() -> None:
        async with open_lab(start=False) as lab, trio.open_nursery() as nursery:
            lab.backend.heeds_button = False
            await nursery.start(lab.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(lab.machine.stop)
            await trio.sleep(9)
            assert lab.running.asked == ["button"]
            lab.guest.refusal, lab.guest.on_shutdown = None, lab.running.end
            await lab.until(MachineState.STOPPED)
            assert lab.guest.asked[-1][0] == pytest.approx((STOP_BUDGET_S - 10) * 0.75)
            assert lab.said("progress").count("no link") == 1

    play(main)


def test_news_do_not_undo_a_stop() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            lab.guest.on_shutdown = lambda: lab.guest.ready(storage="unmounted")
            await lab.machine.stop()
            assert lab.states == ["starting", "ready", "stopping", "stopped"]

    play(main)


def test_a_kill_is_at_once() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            began = trio.current_time()
            await lab.machine.kill()
            assert (trio.current_time(), lab.running.asked, lab.states[-1]) == (began, ["kill"], "stopped")

    play(main)


@pytest.mark.parametrize("phase", ["prepare_s", "start_s"])
def test_a_stop_calls_a_start_off(phase: str) -> None:
    async def main() -> None:
        async with open_lab(start=False) as lab, trio.open_nursery() as nursery:
            setattr(lab if phase == "prepare_s" else lab.backend, phase, 1000.0)
            nursery.start_soon(lab.run)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(60):
                await lab.machine.stop()
            assert (lab.states, lab.backend.lives, lab.outcome) == (["starting", "stopped"], [], None)

    play(main)


def test_a_restart_is_another_life_of_the_same_machine() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.guest.ready()
            await lab.machine.restart()
            await trio.sleep(1)
            assert (len(lab.backend.lives), lab.machine.restarts) == (2, 1)
            await lab.machine.stop()
            with pytest.raises(Trouble, match="does not run"):
                await lab.machine.restart()

    play(main)


@pytest.mark.parametrize("where", ["prepare", "backend"])
def test_a_trouble_before_the_start_is_raised(where: str) -> None:
    async def main() -> None:
        async with open_lab(start=False) as lab:
            if where == "prepare":
                lab.prepare_trouble = trouble("damaged_image")
            else:
                lab.backend.refusal = trouble("no_hypervisor")
            await lab.run()
            assert lab.outcome is (lab.prepare_trouble or lab.backend.refusal)
            assert lab.states == ["starting", "stopped"]

    play(main)


def test_a_trouble_at_a_restart_is_a_crash() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            lab.prepare_trouble = trouble("damaged_image")
            lab.running.end("reset")
            await lab.until(MachineState.CRASHED)
            assert "there is damaged_image" in lab.said()[-1]
            assert lab.outcome is None

    play(main)


def test_what_lives_beside_a_machine_and_dies_is_a_crash() -> None:
    async def main() -> None:
        async with open_lab(start=False) as lab:
            lab.backend.helper_dies = True
            await lab.run()
            assert lab.machine.state is MachineState.CRASHED
            assert "the helper died" in lab.said()[-1]

    play(main)


def test_a_cancelled_machine_leaves_nothing_running() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            running = lab.running
        assert (await running.wait()).how == "killed"
        assert lab.machine.is_over

    play(main)


def test_there_is_nobody_to_connect_to_before_the_start() -> None:
    async def main() -> None:
        async with open_lab(start=False) as lab:
            with pytest.raises(Trouble, match="does not run"):
                await lab.machine.connect()

    play(main)


def test_a_guest_that_does_not_answer_is_said_so() -> None:
    async def main() -> None:
        async with open_lab() as lab:
            machine: Machine = lab.machine
            with pytest.raises(Trouble) as caught:
                await machine.connect()
            assert caught.value.code == "no_answer"

    trio.run(main)
