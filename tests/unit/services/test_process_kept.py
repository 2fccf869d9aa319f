"""`services.process_kept`: who goes, and in which order."""

from __future__ import annotations

from coworkd.config import FinishedConfig
from coworkd.services.process_kept import KeptProcesses


def nobody(process: str) -> bool:
    return False


def everybody(process: str) -> bool:
    return True


def make(*, keep_s: float = 100.0, keep_count: int = 10, keep_bytes: int = 1000) -> KeptProcesses:
    bounds = FinishedConfig(keep_s=keep_s, keep_count=keep_count, keep_bytes=keep_bytes)
    return KeptProcesses(bounds, awaited_bytes=2 * keep_bytes)


def fill(kept: KeptProcesses, *sizes: int) -> None:
    for number, size in enumerate(sizes):
        kept.add(str(number), now_s=float(number), kept_bytes=size)


def test_surplus_is_nobody_within_all_bounds() -> None:
    kept = make()
    fill(kept, 500, 500)
    assert kept.surplus(99.0, nobody) == []


def test_surplus_by_number_is_the_oldest() -> None:
    kept = make(keep_count=2)
    fill(kept, 1, 1, 1, 1)
    assert kept.surplus(4.0, nobody) == ["0", "1"]


def test_surplus_by_bytes_is_as_many_as_it_takes() -> None:
    kept = make()
    fill(kept, 400, 400, 100, 500)
    assert kept.surplus(4.0, nobody) == ["0"]
    kept.add("4", now_s=4.0, kept_bytes=600)
    assert kept.surplus(4.0, nobody) == ["0", "1", "2", "3"]


def test_surplus_spares_the_newest_however_large() -> None:
    kept = make()
    fill(kept, 5000)
    assert kept.surplus(1.0, nobody) == []


def test_surplus_spares_the_newest_beside_those_that_are_read() -> None:
    kept = make()
    fill(kept, 300, 1500)
    assert kept.surplus(2.0, lambda process: process == "0") == []


def test_surplus_by_age_takes_the_newest_too() -> None:
    kept = make(keep_s=10.0)
    fill(kept, 1, 1)
    assert kept.surplus(10.5, nobody) == ["0"]
    assert kept.surplus(11.0, nobody) == ["0", "1"]


def test_discard_gives_the_bytes_back() -> None:
    kept = make()
    fill(kept, 900, 900)
    kept.discard("0")
    kept.discard("unknown")
    assert kept.surplus(2.0, nobody) == []
    assert len(kept) == 1


def test_surplus_by_bytes_passes_over_those_that_are_read_while_all_have_room() -> None:
    kept = make()
    fill(kept, 400, 400, 400, 400, 400)
    assert kept.surplus(4.0, lambda process: process in "012") == []
    assert kept.surplus(4.0, lambda process: process in "12") == ["0"]
    kept.add("5", now_s=4.0, kept_bytes=100)
    assert kept.surplus(4.0, everybody) == ["0"]


def test_surplus_by_number_and_by_age_takes_those_that_are_read_too() -> None:
    kept = make(keep_s=10.0, keep_count=2)
    fill(kept, 1, 1, 1)
    assert kept.surplus(2.0, everybody) == ["0"]
    assert kept.surplus(11.5, everybody) == ["0", "1"]
