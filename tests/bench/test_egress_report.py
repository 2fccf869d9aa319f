"""Egress: its tables and verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from tests.bench.egress import (
    COURSES,
    CROWDS,
    OURS,
    QUICK_EGRESS,
    RUNTIME,
    SOCAT,
    Bulk,
    Contest,
    EgressFigures,
    Held,
    Many,
)
from tests.bench.egress_peers import Footprint
from tests.bench.egress_report import compose_egress_sections, judge_egress
from tests.bench.guest import Memory
from tests.bench.tables import MIB


def footprint(processes: int, mebibytes: int, descriptors: int = 20) -> Footprint:
    memory = Memory(rss_bytes=mebibytes * MIB, pss_bytes=mebibytes * MIB)
    return Footprint(processes=processes, memory=memory, descriptors=descriptors)


def contest(scale: float, held: Footprint) -> Contest:
    return Contest(
        bulk={
            course: Bulk(seconds=[0.1 * scale, 0.11 * scale], cpu_s=[0.05 * scale, 0.06 * scale]) for course in COURSES
        },
        crowds={size: [0.2 * scale, 0.21 * scale] for size in CROWDS},
        small=[0.001 * scale] * 99 + [0.01],
        held=Held(before=footprint(3, 50), held=held),
    )


GOOD_EGRESS = EgressFigures(
    effort=QUICK_EGRESS,
    contests={
        OURS: contest(1, footprint(3, 60)),
        SOCAT: contest(2.5, footprint(203, 500)),
        RUNTIME: Contest(absent="not installed: node"),
    },
    named=[0.002],
    many=Many(
        tunnels=500,
        stalled=100,
        alone_s=[0.1, 0.1],
        beside_s=[0.11, 0.1],
        held=Held(before=footprint(3, 50), held=footprint(3, 70, 1030)),
        after=footprint(3, 52),
    ),
)


def replaced(**fields: Any) -> EgressFigures:
    contests = {**GOOD_EGRESS.contests, OURS: structs.replace(GOOD_EGRESS.contests[OURS], **fields)}
    return structs.replace(GOOD_EGRESS, contests=contests)


def missed(figures: EgressFigures) -> list[str]:
    return [verdict.what for verdict in judge_egress(figures) if not verdict.met]


def test_judge_egress_finds_all_targets_met() -> None:
    assert missed(GOOD_EGRESS) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replaced(small=[0.0021]), "p50"),
        (replaced(crowds={size: [0.3, 0.3] for size in CROWDS}), "new connections/s"),
        (replaced(held=Held(before=footprint(3, 50), held=footprint(3, 63))), "tunnels add"),
        (replaced(held=Held(before=footprint(3, 50), held=footprint(4, 50))), "processes"),
        (
            structs.replace(GOOD_EGRESS, many=structs.replace(GOOD_EGRESS.many, after=footprint(3, 50, 21))),
            "descriptors",
        ),
        (structs.replace(GOOD_EGRESS, many=structs.replace(GOOD_EGRESS.many, beside_s=[0.13, 0.13])), "beside"),
    ],
)
def test_judge_egress_finds_the_target_that_is_missed(bad: EgressFigures, words: str) -> None:
    (what,) = missed(bad)
    assert words in what


def test_judge_egress_compares_bulk_course_by_course() -> None:
    bulk = {**GOOD_EGRESS.contests[OURS].bulk, "CONNECT, up": Bulk(seconds=[0.2, 0.2], cpu_s=[0.2, 0.2])}
    assert missed(replaced(bulk=bulk)) == [
        "egress, CONNECT, up: throughput × socat",
        "egress, CONNECT, up: CPU per byte × socat",
    ]


def test_judge_egress_without_socat_judges_the_rest() -> None:
    contests = {**GOOD_EGRESS.contests, SOCAT: Contest(absent="not installed: socat")}
    verdicts = list(judge_egress(structs.replace(GOOD_EGRESS, contests=contests)))
    assert len(verdicts) == 5


def test_compose_egress_sections_makes_whole_tables_and_says_who_is_absent() -> None:
    sections = compose_egress_sections(GOOD_EGRESS)
    for section in sections:
        if section.startswith("|"):
            assert len({line.count("|") for line in section.splitlines()}) == 1
    assert any("| sandbox-runtime | not installed: node |" in section for section in sections)
    assert any("| socat | +200 | 450.0 MiB | 450.0 MiB |" in section for section in sections)


def test_compose_egress_sections_tells_what_failed() -> None:
    contests = {**GOOD_EGRESS.contests, SOCAT: structs.replace(GOOD_EGRESS.contests[SOCAT], failures=3)}
    sections = compose_egress_sections(structs.replace(GOOD_EGRESS, contests=contests))
    assert any(section.endswith("never came: socat 3.") for section in sections)
