"""The link to a guest: late ones are waited for, silent ones told, clocks set, and each change said once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.errors import LimitExceeded, Unauthenticated, Unavailable
from host_stub.clock import JumpWatch
from host_stub.guest_link import GuestLink
from host_stub.logs import BoundedLog
from host_stub.words import Guest, GuestNews
from tests.unit.host_stub.scripted_guest import ScriptedGuest

WALL = 1_800_000_000.0


class Lab:
    """A guest, the link to it, and what was told, on a virtual clock; the host's wall clock is `wall_ahead` ahead of it."""

    def __init__(self, nursery: trio.Nursery, log: BoundedLog | None = None) -> None:
        self.guest = ScriptedGuest(nursery)
        self.guest_clock_ahead = 0.0
        self.wall_ahead = 0.0
        self.news: list[GuestNews] = []
        self.guest.answers["ping"] = lambda _: {"time": self._now() + self.guest_clock_ahead, "monotonic": 0.0}
        self.guest.answers["sync_clock"] = self._sync
        jumps = JumpWatch(wall=self.wall, monotonic=self._now)
        self.link = GuestLink("unix:///nowhere", log=log, dial=self.guest.dial, wall=self.wall, jumps=jumps)

    def wall(self) -> float:
        return self._now() + self.wall_ahead

    def kinds(self) -> list[str]:
        return [news.kind for news in self.news]

    def told(self, kind: str) -> GuestNews:
        return next(news for news in self.news if news.kind == kind)

    def _now(self) -> float:
        return WALL + trio.current_time()

    def _sync(self, params: dict[str, Any]) -> dict[str, Any]:
        self.guest_clock_ahead = params["time"] - self._now()
        return {"stepped_s": self.guest_clock_ahead}


@asynccontextmanager
async def running(lab: Lab, nursery: trio.Nursery) -> AsyncIterator[None]:
    await nursery.start(lab.link.run, lab.news.append)
    yield
    nursery.cancel_scope.cancel()


def play(script: Callable[[Lab], Awaitable[None]], *, log: BoundedLog | None = None, **guest: Any) -> Lab:
    made: list[Lab] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            lab = Lab(nursery, log)
            made.append(lab)
            for name, value in guest.items():
                setattr(lab.guest, name, value)
            async with running(lab, nursery):
                await script(lab)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return made[0]


def test_a_link_is_a_guest_to_the_machine() -> None:
    link: Guest = GuestLink("unix:///nowhere")
    assert link is not None


def test_a_guest_that_is_up_is_told_as_connected_and_ready() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)

    lab = play(script, degraded={"network": "no card"})
    assert lab.kinds()[:2] == ["connected", "ready"]
    assert lab.told("ready").degraded == {"network": "no card"}
    assert lab.told("connected").details == {"stages": {"start": 0.5}}


def test_a_guest_is_waited_for_however_late_it_is_and_quietly() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(90)
        assert lab.news == []
        assert lab.link.waiting_for == "nobody is there"
        lab.guest.away = False
        await trio.sleep(2)
        assert lab.kinds()[:2] == ["connected", "ready"]
        assert lab.link.waiting_for is None

    lab = play(script, away=True)
    assert lab.guest.dialled < 110


def test_a_guest_that_comes_up_is_ready_when_it_says_so() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(5)
        assert lab.kinds() == ["connected", "event"]  # the event is of its clock
        await lab.guest.notify("health", seq=1, at=1.0, degraded={"share": "not there yet"})
        await lab.guest.notify("ready", seq=2, at=1.0, degraded={"share": "not there"})
        await trio.sleep(0.1)
        assert [news.degraded for news in lab.news if news.kind == "ready"] == [{"share": "not there"}]

    play(script, degraded={"starting": "session disk"})


def test_a_guest_that_was_ready_before_its_events_were_heard_is_found_out() -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Unavailable("coming up: session disk")

    async def script(lab: Lab) -> None:
        subscribe, lab.guest.answers["events.subscribe"] = lab.guest.answers["events.subscribe"], refuse
        await trio.sleep(5)
        assert "ready" not in lab.kinds()
        lab.guest.degraded = {}
        lab.guest.answers["events.subscribe"] = subscribe
        await trio.sleep(1)
        assert "ready" in lab.kinds()

    play(script, degraded={"starting": "session disk"})


def test_what_stops_working_is_told_at_once() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)
        await lab.guest.notify("health", seq=1, at=1.0, degraded={"storage": "full"})
        await lab.guest.notify("health", seq=2, at=1.0, degraded="nonsense")
        await trio.sleep(0.1)

    lab = play(script)
    assert [news.degraded for news in lab.news if news.kind == "ready"] == [{}, {"storage": "full"}, {}]


def test_what_does_not_work_is_told_once_and_again_only_when_it_changes() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(2000)

    lab = play(script, degraded={"network": "no card"})
    assert lab.kinds().count("ready") == 1
    assert 4 <= lab.guest.dialled <= 6, "each look is a link that the guest records"


def test_events_that_no_machine_has_a_use_for_are_not_told() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)
        for number in range(1, 50):
            await lab.guest.notify("process.start", seq=number, at=1.0)
        await trio.sleep(1)

    assert "process.start" not in {news.message for news in play(script).news}


def test_a_link_that_breaks_is_made_again() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)
        await lab.guest.hang_up()
        await trio.sleep(2)

    kinds = [kind for kind in play(script).kinds() if kind != "event"]
    assert kinds == ["connected", "ready", "lost", "connected", "ready"]


def test_a_guest_that_stops_answering_is_hung_and_answers_again() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(5)
        lab.guest.frozen = True
        await trio.sleep(15)
        assert "hung" not in lab.kinds()
        await trio.sleep(15)
        assert lab.kinds().count("hung") == 1
        await trio.sleep(60)
        assert lab.kinds().count("hung") == 1
        lab.guest.frozen = False
        await trio.sleep(15)
        assert lab.kinds()[-4:] == ["answering", "connected", "ready", "event"]

    play(script)


def test_of_a_guest_that_hangs_it_is_said_what_hangs_in_it() -> None:
    async def look() -> str:
        await trio.sleep(3)
        return "coworkd hangs"

    async def script(lab: Lab) -> None:
        lab.link._look_inside = look
        await trio.sleep(5)
        lab.guest.frozen = True
        await trio.sleep(40)

    assert play(script).told("hung").message.endswith("s; coworkd hangs")


def test_a_guest_that_nobody_has_met_yet_is_late_and_never_hung() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(300)

    assert play(script, frozen=True).news == []


def test_the_clock_is_set_on_each_link_and_when_it_is_wrong() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)
        lab.guest_clock_ahead = -40.0
        await trio.sleep(30)
        assert lab.guest_clock_ahead == pytest.approx(0.0, abs=0.1)

    lab = play(script)
    assert [name for name, _ in lab.guest.calls].count("sync_clock") == 2


def test_a_clock_that_stays_wrong_is_not_set_without_end() -> None:
    async def script(lab: Lab) -> None:
        lab.guest.answers["sync_clock"] = lambda _: {}
        lab.guest_clock_ahead = 500.0
        await trio.sleep(60)

    assert [name for name, _ in play(script).guest.calls].count("sync_clock") <= 7


def test_a_guest_that_will_not_have_its_clock_set_back_is_not_asked_all_the_time() -> None:
    async def script(lab: Lab) -> None:
        lab.guest.answers["sync_clock"] = lambda _: {"offset_s": -500.0, "stepped": False, "reason": "never back"}
        lab.guest_clock_ahead = 500.0
        await trio.sleep(300)

    assert [name for name, _ in play(script).guest.calls].count("sync_clock") == 1


def test_a_guest_that_slept_is_told_the_time() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(3)
        await lab.guest.notify("clock.slept", seq=1, at=1.0, slept_s=60.0)
        await trio.sleep(3)

    assert [name for name, _ in play(script).guest.calls].count("sync_clock") == 2


def test_a_host_that_slept_tells_it_and_sets_the_clock() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(3)
        lab.wall_ahead = 3600.0
        await trio.sleep(3)
        assert lab.guest_clock_ahead == pytest.approx(3600.0, abs=0.1)
        assert "+3600.0 s" in lab.told("slept").message

    play(script)


async def in_this_thread(write: Callable[..., None], *arguments: Any) -> None:
    """A virtual clock would run on while a real thread writes."""
    write(*arguments)
    await trio.lowlevel.checkpoint()


def test_the_log_is_followed_over_links_and_restarts_without_gap_or_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", in_this_thread)
    path = tmp_path / "coworkd.log"
    lines = [f"line {number}" for number in range(600)]

    async def script(lab: Lab) -> None:
        lab.guest.answers["logs"] = lambda params: shown(lines, params)
        await trio.sleep(2)
        lines.append("after a while")
        await lab.guest.hang_up()
        await trio.sleep(3)
        lines[:] = ["a new coworkd"]
        lab.guest.started_at = 200.0
        await lab.guest.hang_up()
        await trio.sleep(3)

    play(script, log=BoundedLog(path))
    told = [line.partition("] ")[2] for line in path.read_text().splitlines()]
    assert told == [f"line {number}" for number in range(600)] + ["after a while", "a new coworkd"]


def shown(lines: list[str], params: dict[str, Any]) -> dict[str, Any]:
    after, limit = params["after"], params["limit"]
    found = [
        {"at": 1.0, "level": "info", "component": "coworkd", "message": line, "fields": {}}
        for line in lines[after : after + limit]
    ]
    return {"lines": found, "dropped": 0, "next": after + len(found), "missed": 0}


def test_shutdown_is_asked_on_the_link_that_is_there() -> None:
    async def script(lab: Lab) -> None:
        lab.guest.answers["shutdown"] = lambda _: {}
        await trio.sleep(1)
        assert await lab.link.shutdown(budget_s=20.0, reason="down") is None

    name, params = play(script).guest.calls[-1]
    assert (name, params["budget_s"], params["reason"], params["power_off"]) == ("shutdown", 20.0, "down", True)


def test_shutdown_says_why_it_cannot_be_asked() -> None:
    async def script(lab: Lab) -> None:
        await trio.sleep(1)
        assert "nobody is there" in (await lab.link.shutdown(budget_s=1.0, reason="down") or "")

    play(script, away=True)


def test_shutdown_says_why_it_was_refused() -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise LimitExceeded("not now")

    async def script(lab: Lab) -> None:
        lab.guest.answers["shutdown"] = refuse
        await trio.sleep(1)
        assert "not now" in (await lab.link.shutdown(budget_s=1.0, reason="down") or "")

    play(script)


def test_calls_that_a_guest_coming_up_refuses_end_no_link() -> None:
    def refuse(_: dict[str, Any]) -> Any:
        raise Unavailable("coming up: session disk")

    async def script(lab: Lab) -> None:
        lab.guest.answers["events.subscribe"] = refuse
        lab.guest.answers["logs"] = refuse
        await trio.sleep(10)
        assert "lost" not in lab.kinds()

    play(script, degraded={"starting": "session disk"})


def test_a_guest_that_talks_long_about_why_it_will_not_have_us_is_cut() -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise Unauthenticated("no " * 100_000)

    async def script(lab: Lab) -> None:
        lab.guest.answers["hello"] = refuse
        await trio.sleep(5)
        assert lab.link.waiting_for is not None
        assert len(lab.link.waiting_for) == 500

    play(script)
