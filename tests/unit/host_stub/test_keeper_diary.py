"""What a keeper writes down."""

from __future__ import annotations

import os

import pytest
import trio

from host_stub import keeper_diary
from host_stub.bundle import Bundle
from host_stub.keeper_diary import Diary
from host_stub.keeper_lock import read_record
from host_stub.words import MachineState
from tests.unit.host_stub.machine_lab import Lab


def test_events_become_lines_and_states_the_record(bundle: Bundle) -> None:
    async def main() -> None:
        lab = Lab("hung")
        diary = Diary(bundle, lab.machine, lab.events)
        lab.events.add("state", "starting it", state=MachineState.STARTING)
        lab.events.add("guest", "two\nlines")
        await diary.flush()
        await diary.flush()
        diary.close()

    trio.run(main)
    lines = (bundle.logs / "keeper.log").read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["starting: starting it", "guest: two\\nlines"]
    record = read_record(bundle)
    assert record is not None
    assert (record.state, record.message, record.keeper_pid) == (MachineState.STARTING, "starting it", os.getpid())


def test_what_did_not_fit_is_counted_and_a_full_disk_stops_nobody(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeper_diary, "write_record", full)

    async def main() -> None:
        lab = Lab("hung")
        diary = Diary(bundle, lab.machine, lab.events)
        for _ in range(5000):
            lab.events.add("log", "line")
        lab.events.add("state", "ready", state=MachineState.READY)
        await diary.flush()
        diary.close()

    trio.run(main)
    lines = (bundle.logs / "keeper.log").read_text().splitlines()
    assert "905 events are not written here" in lines[0]
    assert len(lines) == 4097
    assert read_record(bundle) is None
