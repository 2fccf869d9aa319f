"""How full the disk is, and when that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coworkd.services.storage_room import MARKS, SLACK, Room, next_mark, read_room


def room(**fields: int) -> Room:
    values = {"size_bytes": 1000, "free_bytes": 450, "reserved_bytes": 50, "inodes": 100, "inodes_free": 90}
    return Room(**{**values, **fields}, read_only=False)


def test_the_fuller_of_bytes_and_inodes_decides() -> None:
    assert room().used_percent == pytest.approx(100 * 500 / 950)
    assert room(inodes_free=3).used_percent == 97


def test_a_disk_on_which_sessions_get_nothing_more_is_full() -> None:
    assert room(free_bytes=0).used_percent == 100
    assert room(size_bytes=50, free_bytes=0).used_percent == 100


def test_a_file_system_without_a_table_of_inodes_has_none_too_few() -> None:
    assert room(inodes=0, inodes_free=0).used_percent == pytest.approx(100 * 500 / 950)


@pytest.mark.parametrize(
    ("mark", "percent", "after"),
    [(0, 79.9, 0), (0, 80, 80), (80, 79, 80), (80, 77, 0), (80, 96, 95), (95, 92.5, 95), (95, 92, 90), (95, 10, 0)],
)
def test_a_mark_is_passed_at_once_and_taken_back_with_some_slack(mark: int, percent: float, after: int) -> None:
    assert next_mark(mark, percent) == after


@given(st.sampled_from((0, *MARKS)), st.floats(0, 100), st.floats(-SLACK + 0.1, 0))
def test_a_little_less_takes_no_mark_back(mark: int, percent: float, less: float) -> None:
    held = next_mark(mark, percent)
    passed = max((at for at in MARKS if percent >= at), default=0)
    assert next_mark(passed, percent + less) == next_mark(passed, percent)
    assert held >= passed


def test_this_machine_has_room(tmp_path: Path) -> None:
    found = read_room(str(tmp_path))
    assert 0 < found.free_bytes <= found.size_bytes
    assert not found.read_only
