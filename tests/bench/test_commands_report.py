"""The tables and verdicts of starts, streams, restarts and bad neighbours."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.bench.abuse import Abuse
from tests.bench.attach import Replays
from tests.bench.commands import CommandsFigures
from tests.bench.commands_report import compose_commands_sections, judge_commands
from tests.bench.fairness import Fairness
from tests.bench.restart import PLACES, Restart
from tests.bench.spawning import Crowd, Pairs
from tests.bench.starts import StartFigures
from tests.bench.streaming import Streamed
from tests.bench.streams import Sharing
from tests.bench.tables import MIB
from tests.bench.weight import Weighed, Weight

EVEN = Pairs(base_s=[1.0], other_s=[1.0])
TWICE = Pairs(base_s=[1.0], other_s=[2.0])
NOTHING = Weight(coworkd=0, launcher=0)
GOOD_COMMANDS = CommandsFigures(
    starts=StartFigures(
        warm=Pairs(base_s=[0.010], other_s=[0.004]),
        cold=Pairs(base_s=[0.010], other_s=[0.012]),
        crowd=Crowd(pairs=EVEN, count=1000, concurrency=32),
        counts={"taken": 100},
        waiting_bytes=8 * MIB,
        idle_bytes=MIB / 4,
    ),
    streamed=Streamed(size_bytes=1024 * MIB, courses={"writer": Pairs(base_s=[1.0], other_s=[1.25])}),
    shared=[Sharing(commands=64, size_bytes=64 * MIB, pairs=EVEN, plain=EVEN)],
    weighed=[
        Weighed(
            commands=10,
            idle_rss_bytes=30 * MIB,
            before=NOTHING,
            running=Weight(coworkd=100 * 1024, launcher=200 * 1024),
            after=NOTHING,
        )
    ],
    replays=Replays(usual=EVEN, acknowledged=EVEN),
    fairness=[Fairness(name="a flood", runs=EVEN, streams=EVEN)],
    restarts={place.name: [Restart(ready_s=0.4, attached_s=0.5, took_s=0.1)] for place in PLACES},
    abused=[Abuse(way="burns", rest_s=[[0.001]], abused_s=[[0.002]])],
)


def test_judge_commands_finds_all_targets_met() -> None:
    assert [verdict.what for verdict in judge_commands(GOOD_COMMANDS) if not verdict.met] == []


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("warm process.run", {"starts": structs.replace(GOOD_COMMANDS.starts, warm=TWICE)}),
        ("cold process.run", {"starts": structs.replace(GOOD_COMMANDS.starts, cold=TWICE)}),
        ("waits", {"starts": structs.replace(GOOD_COMMANDS.starts, waiting_bytes=11 * MIB)}),
        ("one stream", {"streamed": Streamed(size_bytes=MIB, courses={"writer": TWICE})}),
        ("64 streams", {"shared": [structs.replace(GOOD_COMMANDS.shared[0], pairs=TWICE)]}),
        ("a running command", {"weighed": [structs.replace(GOOD_COMMANDS.weighed[0], commands=4)]}),
        ("a start beside a flood", {"fairness": [Fairness(name="a flood", runs=TWICE, streams=EVEN)]}),
        ("`ping`", {"abused": [Abuse(way="burns", rest_s=[[0.001]], abused_s=[[0.011]])]}),
    ],
)
def test_judge_commands_finds_the_target_that_is_missed(what: str, bad: dict[str, object]) -> None:
    missed = [verdict.what for verdict in judge_commands(structs.replace(GOOD_COMMANDS, **bad)) if not verdict.met]
    assert len(missed) == 1
    assert what in missed[0]


def test_compose_commands_sections_tells_every_figure() -> None:
    text = "\n\n".join(compose_commands_sections(GOOD_COMMANDS))
    assert "/bin/true, warm" in text
    assert "| writer | 1024 MiB/s | 819 MiB/s | 0.80 (0.80 – 0.80) |" in text
    assert "kill -9" in text
    assert "| a flood | 1.00 (1.00 – 1.00) | 1.00 (1.00 – 1.00) |" in text
