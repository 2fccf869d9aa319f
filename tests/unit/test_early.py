"""What is asked of a coworkd that has only just begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec import structs

from coworkd import early as early_module
from coworkd.bring_up import Ground
from coworkd.cli.daemon import compose_local_config
from coworkd.config import GuestConfig
from coworkd.early import Early
from coworkd.model.calls_boot import Shutdown
from coworkd.model.errors import InvalidParams, InvalidState
from coworkd.services.logs import LogService
from coworkd.unit import Unit


async def _never() -> Any:
    await trio.sleep_forever()


def make(tmp_path: Path, guest: GuestConfig) -> tuple[Early, Ground]:
    config = structs.replace(compose_local_config(state=str(tmp_path / "state"), socket="/s"), guest=guest)
    ground, logs = Ground(config, connect=_never), LogService(level="error")
    logs.close()
    return Early(config, ground=ground, logs=logs, mode="serve", unit=Unit(None), token=None), ground


def test_what_is_there_at_once(tmp_path: Path) -> None:
    early, _ = make(tmp_path, GuestConfig())
    assert {method.name for method in early.methods} == {
        *("hello", "ping", "boot_time", "sync_clock", "shutdown", "logs", "set_log_level"),
        *("events.subscribe", "events.unsubscribe"),
    }


def test_a_shutdown_ends_coworkd_and_not_the_machine(tmp_path: Path) -> None:
    early, ground = make(tmp_path, GuestConfig(power_off=True))
    trio.run(early.shutdown, Shutdown(reason="enough"))
    assert ground.ending.reason == "asked for over a link: enough"
    assert ground.ending.power_off_within_s is None


def test_the_machine_goes_off_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforced: list[float] = []
    monkeypatch.setattr(early_module, "enforce", enforced.append)
    early, ground = make(tmp_path, GuestConfig(power_off=True))
    trio.run(early.shutdown, Shutdown(power_off=True, budget_s=7.0))
    assert (ground.ending.power_off_within_s, enforced) == (7.0, [8.0])


def test_asking_again_gives_no_more_time_and_no_more_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforced: list[float] = []
    monkeypatch.setattr(early_module, "enforce", enforced.append)
    early, ground = make(tmp_path, GuestConfig(power_off=True))

    async def main() -> None:
        for budget_s in (7.0, 7.0, 600.0, 3.0, 3.0):
            await early.shutdown(Shutdown(power_off=True, budget_s=budget_s))
        assert ground.ending.left_s <= 3.0

    trio.run(main, clock=trio.testing.MockClock())
    assert (ground.ending.power_off_within_s, enforced) == (3.0, [8.0, 4.0])


def test_somebodys_machine_is_not_turned_off(tmp_path: Path) -> None:
    early, ground = make(tmp_path, GuestConfig())
    with pytest.raises(InvalidState, match="not coworkd's to turn off"):
        trio.run(early.shutdown, Shutdown(power_off=True))
    assert not ground.ending.wanted.is_set()


@pytest.mark.parametrize("budget_s", [0.0, -1.0, 1e9, float("nan")])
def test_a_budget_that_is_none_is_refused(tmp_path: Path, budget_s: float) -> None:
    early, _ = make(tmp_path, GuestConfig(power_off=True))
    with pytest.raises(InvalidParams, match="budget_s"):
        trio.run(early.shutdown, Shutdown(budget_s=budget_s))
