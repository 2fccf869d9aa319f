"""The benchmark's tables and verdicts."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.bench.guest import Cpu, Memory
from tests.bench.report import FIRST_BYTE, RUN, Figures, Machine, Way, compose_report, judge
from tests.bench.resident import Resident, Start
from tests.bench.spawning import Pairs
from tests.bench.tables import MIB
from tests.bench.test_commands_report import GOOD_COMMANDS
from tests.bench.test_egress_report import GOOD_EGRESS
from tests.bench.test_storage_report import GOOD_STORAGE

SMALL = Resident(
    processes={
        "coworkd": Memory(rss_bytes=30 * MIB, pss_bytes=20 * MIB),
        "coworkd-launcher": Memory(rss_bytes=12 * MIB, pss_bytes=9 * MIB),
    }
)
GOOD = Figures(
    machine=Machine(facts={"machine": "a test"}),
    ways=[
        Way(name=RUN, pairs=Pairs(base_s=[0.010, 0.011], other_s=[0.012, 0.0132])),
        Way(name=FIRST_BYTE, pairs=Pairs(base_s=[0.010], other_s=[0.011])),
        Way(name="absent", absent="not installed: absent"),
    ],
    idle=SMALL,
    used=SMALL,
    running=SMALL,
    starts=[Start(wall_s=0.3, cpu=Cpu(own_s=0.2, children_s=0.05))],
    commands=GOOD_COMMANDS,
    egress=GOOD_EGRESS,
    storage=GOOD_STORAGE,
)


def test_judge_finds_all_targets_met() -> None:
    assert [verdict.what for verdict in judge(GOOD) if not verdict.met] == []


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        (
            "coworkd-launcher: idle RSS",
            structs.replace(
                GOOD, idle=Resident(processes={"coworkd-launcher": Memory(rss_bytes=17 * MIB, pss_bytes=0)})
            ),
        ),
        ("CPU until ready", structs.replace(GOOD, starts=[Start(wall_s=0.3, cpu=Cpu(own_s=0.3, children_s=0.11))])),
    ],
)
def test_judge_finds_the_target_that_is_missed(what: str, bad: Figures) -> None:
    assert [verdict.what for verdict in judge(bad) if not verdict.met] == [what]


def test_compose_report_tells_figures_and_who_is_absent() -> None:
    report = compose_report(GOOD)
    assert "| coworkd: process.run | 12.60 ms |" in report
    assert "| absent | not installed: absent |" in report
    assert "**no**" not in report


def test_compose_report_makes_whole_tables() -> None:
    columns = 0
    for line in compose_report(GOOD).splitlines():
        if line.startswith("|"):
            assert columns in (0, line.count("|"))
            columns = line.count("|")
        else:
            columns = 0
