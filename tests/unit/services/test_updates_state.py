from __future__ import annotations

import os
from pathlib import Path

import pytest

from coworkd.model.errors import DiskFailed
from coworkd.release import slots
from coworkd.release.slots import Slot, SlotState
from coworkd.services.updates_state import SlotStates
from tests.unit.services.process_house import in_trio

STATE = slots.stage(SlotState(), "a", Slot(version="1.1", sha256="x", contents=("code",)))


@in_trio
async def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    states = SlotStates(str(tmp_path / "slots"))
    assert await states.load() == ""
    await states.save(STATE)
    again = SlotStates(str(tmp_path / "slots"))
    await again.load()
    assert again.state == STATE
    assert os.stat(tmp_path / "slots").st_mode & 0o777 == 0o700


@in_trio
async def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    states = SlotStates(str(tmp_path / "slots"))
    await states.load()
    await states.save(SlotState())
    assert not (tmp_path / "slots").exists()


@in_trio
async def test_what_cannot_be_written_is_told_and_the_old_one_holds(tmp_path: Path) -> None:
    (tmp_path / "slots").write_text("in the way")
    states = SlotStates(str(tmp_path / "slots"))
    with pytest.raises(DiskFailed):
        await states.save(STATE)
    assert states.state == SlotState()
    with pytest.raises(DiskFailed):
        await states.load()
