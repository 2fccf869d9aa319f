"""Waiting for a machine to be up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from host_stub.bundle import Bundle
from host_stub.cli import following
from host_stub.cli.following import how_it_ended, wait_until_up
from host_stub.keeper_client import KeeperGone
from host_stub.keeper_lock import write_record
from host_stub.keeper_words import Record, Status
from host_stub.words import MachineEvent, MachineState, Trouble


class FakeKeeper:
    """Gives one batch of events a call, and is gone after the last."""

    def __init__(self, *batches: list[MachineState]) -> None:
        self._batches = list(batches)
        self._seq = 0
        self._state = MachineState.STARTING

    def events(self, *, after: int, wait_s: float) -> tuple[tuple[MachineEvent, ...], int]:
        if not self._batches:
            raise KeeperGone("gone")
        made = []
        for state in self._batches.pop(0):
            self._seq, self._state = self._seq + 1, state
            made.append(
                MachineEvent(
                    seq=self._seq, at=0.0, kind="state", state=state, message=state.value, details={"serial": ["last"]}
                )
            )
        return tuple(made), 0

    def status(self) -> Status:
        return Status(bundle="/vm", state=self._state, message="m", last_seq=self._seq, ready_after_s=1.0)


def wait(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, keeper: FakeKeeper | None, **options: Any) -> list[str]:
    @contextlib.contextmanager
    def opening(_: Bundle) -> Iterator[FakeKeeper | None]:
        yield keeper

    monkeypatch.setattr(following, "open_keeper", opening)
    told: list[str] = []
    wait_until_up(bundle, lambda event: told.append(event.message), **options)
    return told


@pytest.mark.parametrize("last", [MachineState.READY, MachineState.DEGRADED])
def test_events_are_told_until_it_is_up(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, last: MachineState) -> None:
    keeper = FakeKeeper([MachineState.STARTING], [], [MachineState.CONNECTED, last])
    assert wait(monkeypatch, bundle, keeper) == ["starting", "connected", last.value]


def test_a_crash_is_a_trouble_with_its_last_lines(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    keeper = FakeKeeper([MachineState.STARTING, MachineState.CRASHED])
    with pytest.raises(Trouble) as caught:
        wait(monkeypatch, bundle, keeper)
    assert (caught.value.code, caught.value.details["serial"]) == ("crashed", ["last"])


def test_a_limit_ends_the_waiting_only(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    now = iter(range(100))
    keeper = FakeKeeper(*[[MachineState.STARTING]] * 20)
    with pytest.raises(Trouble, match="goes on starting") as caught:
        wait(monkeypatch, bundle, keeper, limit_s=5.0, monotonic=lambda: float(next(now)))
    assert caught.value.code == "not_ready"


def test_a_keeper_that_is_gone_has_left_a_record(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    write_record(bundle, Record(state=MachineState.CRASHED, message="panic", at=0.0, keeper_pid=1))
    for keeper in (FakeKeeper([MachineState.STARTING]), None):
        with pytest.raises(Trouble, match="panic") as caught:
            wait(monkeypatch, bundle, keeper)
        assert caught.value.code == "crashed"


@pytest.mark.parametrize(
    ("state", "code"),
    [(None, "not_running"), (MachineState.STOPPED, "stopped"), (MachineState.READY, "keeper_killed")],
)
def test_how_it_ended(bundle: Bundle, state: MachineState | None, code: str) -> None:
    if state is not None:
        write_record(bundle, Record(state=state, message="m", at=0.0, keeper_pid=1))
    assert how_it_ended(bundle).code == code
