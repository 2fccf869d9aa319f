"""What a soak makes of its looks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.soak.statement import LEVEL_KIB, LEVEL_LOOKS, ROOM_KIB, Look, Statement

HELD = {"coworkd: socket": 30, "coworkd: threads": 6}


def statement(kib: Sequence[int], *, full: int, program: str = "coworkd") -> Statement:
    looks = [Look(at_s=60.0 * number, held=HELD, memory_kib={program: each}) for number, each in enumerate(kib)]
    return Statement(seed=1, minutes=30.0, looks=looks, full=full, faults={}, outcomes={}, wrong=[])


def test_memory_that_fills_tables_and_then_stays_passes() -> None:
    made = statement([36_000, 45_000, *[52_000, 52_600] * 5], full=10)
    assert made.problems() == []
    assert made.risen_kib("coworkd") == pytest.approx(0.0, abs=200)
    assert any(line.lstrip().startswith("risen") for line in made.lines())


@pytest.mark.parametrize("program", LEVEL_KIB)
def test_memory_that_goes_on_growing_with_full_tables_does_not_pass(program: str) -> None:
    step = LEVEL_KIB[program] // 5 + 1  # the means of the halves of ten looks lie five steps apart
    assert 11 * step < ROOM_KIB[program]
    (problem,) = statement([20_000 + step * number for number in range(12)], full=10, program=program).problems()
    assert problem.startswith(f"{program} is not flat")


def test_a_single_high_look_is_no_growth() -> None:
    assert statement([52_000] * 9 + [54_000], full=10).problems() == []


def test_growth_before_tables_are_full_has_its_room_and_no_more() -> None:
    assert statement([30_000, *[30_000 + ROOM_KIB["coworkd"]] * 10], full=10).problems() == []
    (problem,) = statement([30_000, *[30_001 + ROOM_KIB["coworkd"]] * 10], full=10).problems()
    assert "grew by" in problem


def test_few_looks_say_nothing_about_a_level() -> None:
    assert statement([30_000, 40_000, 50_000], full=LEVEL_LOOKS - 1).problems() == []


def test_a_count_that_is_higher_at_the_end_does_not_pass() -> None:
    made = statement([30_000] * 2, full=0)
    more = Look(at_s=200.0, held={**HELD, "coworkd: socket": 31, "coworkd: threads": 9}, memory_kib={"coworkd": 30_000})
    later = Statement(seed=1, minutes=1.0, looks=[*made.looks, more], faults={}, outcomes={}, wrong=[])
    assert later.problems() == ["coworkd: socket: 30 after warming up, 31 at the end; look by look: 30 30 31"]
