"""Following a log: what was gone is said, and a guest that counts nonsense is not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.errors import OutOfRange
from host_stub.guest_log import LogFollower
from host_stub.logs import BoundedLog
from tests.unit.host_stub.scripted_guest import ScriptedGuest

LINE = {"at": 1.0, "level": "info", "component": "coworkd", "message": "a line", "fields": {}}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual clock would run on while a real thread writes."""

    async def run_sync(write: Callable[..., None], *arguments: Any) -> None:
        write(*arguments)
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


def follow(path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]], *, for_s: float = 10) -> list[str]:
    """The lines in the file after following for a while."""
    calls = 0

    def counted(params: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        assert calls < 50, "asked again and again without a pause"
        return answer(params)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            guest = ScriptedGuest(nursery)
            guest.answers["logs"] = counted
            async with await guest.dial(5) as client:
                nursery.start_soon(LogFollower(BoundedLog(path), wall=lambda: 0.0).follow, client, 1.0)
                await trio.sleep(for_s)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return [line.partition("] ")[2] for line in path.read_text().splitlines()] if path.exists() else []


def test_what_was_gone_stands_in_the_file(tmp_path: Path) -> None:
    def answer(params: dict[str, Any]) -> dict[str, Any]:
        if params["after"]:
            return {"lines": [], "dropped": 0, "next": 42, "missed": 0}
        return {"lines": [LINE], "dropped": 41, "next": 42, "missed": 41}

    assert follow(tmp_path / "log", answer) == ["41 lines of the guest were gone before they could be read", "a line"]


def test_a_guest_whose_numbers_stand_still_is_asked_slowly_and_written_once(tmp_path: Path) -> None:
    def answer(_: dict[str, Any]) -> dict[str, Any]:
        return {"lines": [LINE] * 250, "dropped": 0, "next": 5, "missed": 0}

    assert len(follow(tmp_path / "log", answer)) == 250


def test_a_guest_that_does_not_know_the_number_is_read_from_its_beginning(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params["after"])
        if params["after"] == 9:
            raise OutOfRange("no line 9")
        return {"lines": [LINE], "dropped": 0, "next": 9, "missed": 0}

    follow(tmp_path / "log", answer, for_s=2.5)
    assert asked[:3] == [0, 9, 0]


def test_an_answer_that_is_none_is_passed_over(tmp_path: Path) -> None:
    assert follow(tmp_path / "log", lambda _: {"lines": "no"}) == []
