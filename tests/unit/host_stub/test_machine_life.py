"""The life of a guest, without I/O."""

from __future__ import annotations

from typing import Any

import pytest

from host_stub.machine_life import (
    HUNG_S,
    LATE_S,
    LOST_S,
    RESTART_WINDOW_S,
    RESTARTS,
    Life,
    RestartBudget,
    judge_end,
)
from host_stub.words import Ended, GuestNews, MachineState

READY = GuestNews(kind="ready", boot_id="b", version="1")
CONNECTED = GuestNews(kind="connected", boot_id="b", version="1", degraded={"starting": "session disk"})
LOST = GuestNews(kind="lost", message="closed")
HUNG = GuestNews(kind="hung", message="nothing for 20 s")


def test_a_good_life() -> None:
    life = Life(10.0)
    assert "coming up: session disk" in life.news(CONNECTED, 14.0).message
    assert life.state is MachineState.CONNECTED
    assert life.news(READY, 15.0).state is MachineState.READY
    assert (life.ready_after_s, life.version, life.boot_id) == (5.0, "1", "b")


def test_what_does_not_work_degrades_and_can_come_back() -> None:
    life = Life(0.0)
    said = life.news(GuestNews(kind="ready", degraded={"share": "gone"}), 1.0)
    assert (said.state, said.message) == (MachineState.DEGRADED, "the guest is ready, without share: gone")
    assert life.news(GuestNews(kind="ready", degraded={"share": "gone", "x": "y"}), 2.0).state is None
    assert life.news(READY, 3.0).state is MachineState.READY


def test_little_is_kept_of_what_a_guest_says_of_itself() -> None:
    life = Life(0.0)
    flood = {f"{number:03}" + "x" * 99: "why" * 9999 for number in range(999)}
    life.news(GuestNews(kind="ready", degraded=flood, version="v" * 9999, boot_id="b" * 9999), 1.0)
    assert (len(life.degraded), len(life.version), len(life.boot_id)) == (32, 64, 64)
    assert max(map(len, life.degraded.values())) == 500


def test_a_late_guest_is_told_now_and_then_with_its_last_line() -> None:
    life = Life(0.0)
    assert life.late(LATE_S - 1, "x") is None
    said = life.late(LATE_S, "Loading initrd")
    assert said is not None
    assert "15 s by now; its serial console says: Loading initrd" in said.message
    assert life.late(LATE_S + 1, "x") is None
    again = life.late(2 * LATE_S, "")
    assert again is not None
    assert "has said nothing yet" in again.message
    life.news(CONNECTED, 100.0)
    assert life.late(1000.0, "x") is None


def test_a_guest_nobody_heard_of_is_never_overdue() -> None:
    life = Life(0.0)
    assert life.silent(1e9) is None
    assert not life.overdue(1e9)


def test_a_lost_link_that_comes_again_is_no_matter() -> None:
    life = Life(0.0)
    life.news(READY, 1.0)
    assert life.news(LOST, 2.0).state is None
    assert life.silent(2.0 + LOST_S - 1) is None
    life.news(CONNECTED, 2.0 + LOST_S - 1)
    assert life.silent(1e9) is None


def test_a_lost_link_that_does_not_come_again_is_a_hung_guest() -> None:
    life = Life(0.0)
    life.news(READY, 1.0)
    life.news(LOST, 2.0)
    life.news(LOST, 3.0)
    said = life.silent(2.0 + LOST_S)
    assert said is not None
    assert said.state is MachineState.HUNG
    assert life.silent(2.0 + 2 * LOST_S) is None
    assert not life.overdue(2.0 + LOST_S + HUNG_S - 1)
    assert life.overdue(2.0 + LOST_S + HUNG_S)


@pytest.mark.parametrize("kind", ["answering", "connected", "ready"])
def test_a_hung_guest_that_answers_again_is_what_it_was(kind: Any) -> None:
    life = Life(0.0)
    life.news(READY, 1.0)
    assert life.news(HUNG, 2.0).state is MachineState.HUNG
    assert life.news(HUNG, 3.0).state is None
    said = life.news(GuestNews(kind=kind, message="again"), 4.0)
    assert said.state is (MachineState.CONNECTED if kind == "connected" else MachineState.READY)
    assert not life.overdue(1e9)


def test_other_news_change_no_state_and_are_told_in_words() -> None:
    life = Life(0.0)
    said = life.news(GuestNews(kind="slept", message="this host slept"), 1.0)
    assert (said.message, said.state) == ("this host slept", None)
    said = life.news(GuestNews(kind="event", message="memory.oom", details={"session": "s"}), 1.0)
    assert (said.state, said.details) == (None, {"event": "memory.oom", "session": "s"})
    assert said.message == "a command was ended because there was no memory left: s"
    assert life.state is MachineState.STARTING


@pytest.mark.parametrize(
    ("mode", "cause", "granted"),
    [
        ("hung", MachineState.HUNG, True),
        ("hung", None, True),
        ("hung", MachineState.CRASHED, False),
        ("always", MachineState.CRASHED, True),
        ("never", MachineState.HUNG, False),
        ("never", None, False),
    ],
)
def test_what_is_started_again(mode: Any, cause: Any, granted: bool) -> None:
    assert RestartBudget(mode).spend(cause, 0.0) is granted


def test_restarts_are_bounded_in_a_window() -> None:
    budget = RestartBudget("hung")
    assert [budget.spend(MachineState.HUNG, 1.0 * n) for n in range(RESTARTS + 2)] == [True] * RESTARTS + [False] * 2
    assert budget.spend(MachineState.HUNG, RESTART_WINDOW_S + 0.5)
    assert not budget.spend(MachineState.HUNG, RESTART_WINDOW_S + 0.6)


@pytest.mark.parametrize(
    ("how", "state", "said"),
    [
        ("powered_off", MachineState.STOPPED, "powered itself off"),
        ("reset", None, "started again"),
        ("panicked", MachineState.CRASHED, "kernel panicked: why; its serial console said last: b"),
        ("killed", MachineState.CRASHED, "killed from outside"),
        ("failed", MachineState.CRASHED, "the machine failed: why"),
    ],
)
def test_how_a_life_ends(how: Any, state: MachineState | None, said: str) -> None:
    judged = judge_end(Ended(how=how, message="why", exit_status=1), ["a", "b"])
    assert judged.state is state
    assert said in judged.message
    assert judged.details == {"how": how, "exit_status": 1, "serial": ["a", "b"]}


def test_a_silent_console_is_said() -> None:
    assert "has said nothing" in judge_end(Ended(how="failed", message="why"), []).message
