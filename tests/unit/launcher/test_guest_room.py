"""What is kept back of a guest's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.launcher import guest_room

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("total", "sessions"),
    [(256 * MIB, 128 * MIB), (1 * GIB, 768 * MIB), (2560 * MIB, 2304 * MIB), (10 * GIB, 9 * GIB), (0, 0)],
)
def test_a_tenth_and_at_least_256_mib_are_kept_back(total: int, sessions: int) -> None:
    assert guest_room.sessions_max(total) == sessions


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    for name in ("memory.max", "memory.min", "cpu.weight", "io.weight"):
        (path / name).touch()
    return path


def test_sessions_come_after_who_serves_them(tmp_path: Path) -> None:
    sessions, beside = make(tmp_path / "sessions"), make(tmp_path / "supervisor")
    guest_room.bound(str(sessions), GIB)
    assert (sessions / "memory.max").read_text() == str(768 * MIB)
    assert (sessions / "cpu.weight").read_text() == "100"
    assert (beside / "cpu.weight").read_text() == "10000"
    assert (beside / "memory.max").read_text() == ""
    assert (beside / "memory.min").read_text() == str(guest_room.OWN_MIN_BYTES)
    assert (sessions / "memory.min").read_text() == ""


def test_a_cgroup_of_ones_own_has_nobody_beside_it(tmp_path: Path) -> None:
    other = make(tmp_path / "supervisor")
    guest_room.bound(str(make(tmp_path / "coworkd-1")), GIB)
    assert (other / "cpu.weight").read_text() == ""


def test_the_guests_memory_is_known() -> None:
    assert guest_room.total_memory() > 16 * MIB
