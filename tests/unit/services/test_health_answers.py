"""What the health port says of a coworkd that is well, that hangs, and that is only coming up."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

import coworkd
from coworkd.services.health import Health
from coworkd.services.health_answers import Answers
from coworkd.services.health_http import Answer
from coworkd.services.health_pulse import Counted
from tests.unit.services.test_health import Clock
from tests.unit.wire.exposition import parse_exposition
from tests.unit.wire.test_prometheus import STATS


class Room:
    """The answers of a coworkd whose clock is ours."""

    def __init__(self) -> None:
        self.clock = Clock(100.0)
        self.health = Health(boot_id="b", state_dir="/s", monotonic=self.clock)
        self.answers = Answers(self.health, stuck_s=10.0)

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = self.answers.answer(path)
        return answer.status, msgspec.json.decode(answer.body)


def test_a_loop_that_turns_lives() -> None:
    room = Room()
    room.clock.now += 9.0
    room.health.pulse.turned_at = 108.5
    assert room.ask("/live") == (
        200,
        {
            "live": True,
            "turned_ago_s": 0.5,
            "loop_lag_s": 0.0,
            "idle_for_s": 9.0,
            "running": None,
            "uptime_s": 9.0,
            "pid": os.getpid(),
            "version": coworkd.__version__,
        },
    )


def test_a_loop_that_hangs_does_not_live_and_one_that_is_only_late_does() -> None:
    room = Room()
    room.health.pulse.lag_s = 60.0
    room.clock.now += 9.9
    assert room.ask("/live")[0] == 200
    room.clock.now += 0.1
    status, said = room.ask("/live")
    assert (status, said["live"], said["turned_ago_s"], said["loop_lag_s"]) == (503, False, 10.0, 60.0)


def test_what_runs_is_told_beside_how_long_nobody_has_asked() -> None:
    room = Room()
    room.health.pulse.counted = Counted(stats=STATS, at=100.0)
    assert room.ask("/live")[1]["running"] == 4  # the exited ones are not


def test_ready_is_who_has_come_up() -> None:
    room = Room()
    with room.health.stage("storage"):
        assert room.ask("/ready") == (503, {"ready": False, "doing": "storage", "degraded": []})
    room.health.all_here()
    assert room.ask("/ready") == (200, {"ready": True, "doing": None, "degraded": []})


def test_parts_are_told_by_the_first_of_their_names_and_never_why() -> None:
    room = Room()
    for part, why in {
        "storage": "no disk at /dev/secret",
        "endpoint vsock://:5005": "taken",
        "endpoint unix:///home/alice/s": "no directory",
        "bridge sesame": "refused",
        "Überraschung": "?",
    }.items():
        room.health.degrade(part, why)
    room.health.all_here()
    assert room.ask("/ready")[1]["degraded"] == ["bridge", "endpoint", "other", "storage"]
    told = parse_exposition(room.answers.answer("/metrics").body.decode())
    assert set(told["coworkd_degraded"].by("part")) == {"bridge", "endpoint", "other", "storage"}
    everything = b"".join(room.answers.answer(path).body for path in ("/live", "/ready", "/metrics"))
    for secret in (b"secret", b"alice", b"5005", b"sesame", b"directory"):
        assert secret not in everything


def test_metrics_tell_the_newest_counts_and_their_age() -> None:
    room = Room()
    answer = room.answers.answer("/metrics")
    assert (answer.status, answer.kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "coworkd_links" not in parse_exposition(answer.body.decode())
    room.health.pulse.counted = Counted(stats=STATS, at=100.0)
    room.clock.now += 4.0
    told = parse_exposition(room.answers.answer("/metrics").body.decode())
    assert (told["coworkd_links"].value, told["coworkd_counted_ago_seconds"].value) == (2, 4.0)


@pytest.mark.parametrize("path", ["/", "/live/", "/Live", "/healthz"])
def test_there_is_nothing_else(path: str) -> None:
    answer = Room().answers.answer(path)
    assert answer == Answer(
        status=404, kind="text/plain; charset=utf-8", body=b"there are /live, /ready and /metrics\n"
    )
