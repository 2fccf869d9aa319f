from __future__ import annotations

from coworkd.model.uids import MAX_UID, MIN_UID


def test_session_uids_are_neither_the_systems_nor_ranges() -> None:
    assert 1000 < MIN_UID < MAX_UID < 60_000
