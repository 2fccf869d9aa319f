"""What the service manager is told, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from coworkd.unit import Unit, describe


@dataclass
class State:
    ready: bool = False
    doing: str = "storage"
    degraded: dict[str, str] = field(default_factory=dict)


def test_it_lives_as_long_as_the_loop_turns() -> None:
    said: list[tuple[float, str]] = []

    async def main() -> None:
        unit, state = Unit(lambda text: said.append((trio.current_time() - began, text)), watchdog_s=4.0), State()
        began = trio.current_time()
        with trio.move_on_after(2.5):
            await unit.serve(state)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert said == [(0.0, "WATCHDOG=1\nSTATUS=coming up: storage"), (1.0, "WATCHDOG=1"), (2.0, "WATCHDOG=1")]


def test_a_loop_that_hangs_gives_no_sign() -> None:
    said: list[str] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Unit(said.append, watchdog_s=0.4).serve, State(ready=True))
            await trio.testing.wait_all_tasks_blocked()
            before = len(said)
            clock.jump(3600.0)  # as a step that never gives way would let time pass
            assert len(said) == before
            nursery.cancel_scope.cancel()

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_the_status_is_said_when_it_changes() -> None:
    said: list[str] = []

    async def main() -> None:
        state = State()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Unit(said.append).serve, state)
            await trio.sleep(1.5)
            state.ready = True
            await trio.sleep(2)
            state.degraded = {"storage": "no disk"}
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert said == ["STATUS=coming up: storage", "STATUS=ready", "STATUS=ready; degraded: storage: no disk"]


def test_it_listens_once_and_stops() -> None:
    said: list[str] = []
    unit = Unit(said.append)
    unit.listening()
    unit.listening()
    unit.stopping()
    assert said == ["READY=1", "STOPPING=1"]


def test_without_a_manager_nothing_is_sent_and_nothing_waits() -> None:
    unit = Unit(None, watchdog_s=1.0)
    unit.listening()
    trio.run(unit.serve, State())


def test_a_manager_that_takes_nothing_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(text: str) -> None:
        raise BlockingIOError(11, "full")

    Unit(refuse).listening()
    assert "READY=1" in caplog.text


def test_what_is_said_of_a_state() -> None:
    assert describe(State(ready=True)) == "ready"
