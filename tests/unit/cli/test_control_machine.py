"""The verbs of the machine over a client that answers what it is told to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coworkd.cli import control_machine
from coworkd.cli.control import main
from coworkd.model.calls_boot import BootStep, BootTime, ClockSynced

BOOT = BootTime(
    boot_id="b",
    steps=(BootStep(group="kernel", name="kernel", start_s=0.0, took_s=2.0),),
    ready_s=5.0,
    notes=("one note",),
)


class FakeClient:
    def __init__(self, synced: ClockSynced) -> None:
        self.synced = synced
        self.asked: list[dict[str, Any]] = []

    def boot_time(self) -> BootTime:
        return BOOT

    def sync_clock(self, *, time: float) -> ClockSynced:
        return self.synced

    def shutdown(self, **words: Any) -> None:
        self.asked.append(words)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient(ClockSynced(offset_s=0.01, stepped=False))

    @contextlib.contextmanager
    def open_client(args: Any) -> Iterator[FakeClient]:
        yield made

    monkeypatch.setattr(control_machine, "open_client", open_client)
    return made


@pytest.mark.usefixtures("client")
def test_boot_time_is_a_table_with_what_it_comes_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot-time"]) == 0
    out = capsys.readouterr().out
    assert "kernel" in out
    assert "ready 5.00 s after" in out
    assert "one note" in out


@pytest.mark.usefixtures("client")
def test_boot_time_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot-time", "--svg", str(tmp_path / "boot.svg")]) == 0
    assert (tmp_path / "boot.svg").read_text().startswith("<svg ")
    assert main(["boot-time", "--svg", str(tmp_path / "nowhere" / "boot.svg")]) != 0
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("synced", "status", "said"),
    [
        (ClockSynced(offset_s=5.0, stepped=True), 0, "stepped by 5.000 s"),
        (ClockSynced(offset_s=-0.02, stepped=False), 0, "right, to 0.020 s"),
        (ClockSynced(offset_s=-9.0, stepped=False, reason="never set back"), 1, "not stepped: never set back"),
    ],
)
def test_a_clock_that_stays_wrong_is_a_failure(
    client: FakeClient, capsys: pytest.CaptureFixture[str], synced: ClockSynced, status: int, said: str
) -> None:
    client.synced = synced
    assert main(["sync-clock"]) == status
    assert said in capsys.readouterr().out


def test_shutdown_says_what_was_asked(client: FakeClient) -> None:
    assert main(["shutdown", "--power-off", "--budget", "7", "--reason", "enough"]) == 0
    assert client.asked == [{"reason": "enough", "budget_s": 7.0, "power_off": True}]
