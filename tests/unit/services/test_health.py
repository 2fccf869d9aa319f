"""Health: stages, degraded parts, counts."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
import trio
import trio.testing

import coworkd
from coworkd.model.calls import Finding, Report, Reported, ReportPart
from coworkd.model.errors import Unavailable
from coworkd.services.health import Health, Sources
from coworkd.services.health_pulse import BEAT_S, Pulse


class Clock:
    """A clock that moves when told."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


FINDING = Finding(check="python", state="ok", detail="3.11")


async def warm() -> dict[str, int]:
    return {"waiting": 1}


def sources(**more: Any) -> Sources:
    made = Sources(
        endpoints=lambda: ("unix:///s",),
        profiles=lambda: ("default", "strict"),
        bubblewrap=lambda: "0.8.0",
        launcher_pid=lambda: os.getpid(),
        links=lambda: 2,
        sessions=lambda: 3,
        processes=lambda: {"running": 4},
        started_total=lambda: 5,
        start_errors_total=lambda: 6,
        spool_bytes=lambda: 7,
        audit_records=lambda: 8,
        audit_syncs=lambda: (3, 0.5, 0.25),
        egress_pid=lambda: None,
        egress=lambda: {"connections": 1},
        output_bytes=lambda: 9,
        spool_memory=lambda: (3, 256),
        streams=lambda: 10,
        requests_total=lambda: 12,
        work_total=lambda: 11,
        events=lambda: (13, 14),
        warm=warm,
        pressure=lambda: {"memory": 0.5},
        doctor=lambda: (FINDING,),
        report=lambda params: Reported(parts=(ReportPart(file="x.json", source=str(params.with_names)),)),
    )
    return dataclasses.replace(made, **more)


def test_stage_is_timed() -> None:
    clock, monotonic = Clock(100.0), Clock(10.0)
    health = Health(boot_id="b", state_dir="/s", clock=clock, monotonic=monotonic)
    with health.stage("disk"):
        monotonic.now += 1.5
    (stage,) = health.hello_answer(()).stages
    assert (stage.name, stage.started_at, stage.took_s, stage.error) == ("disk", 100.0, 1.5, None)
    assert health.degraded == {}


def test_a_failing_stage_is_noted_and_goes_on_to_the_caller() -> None:
    health = Health(boot_id="b", state_dir="/s")
    with pytest.raises(OSError, match="no disk"), health.stage("disk"):
        raise OSError("no disk")
    answer = health.hello_answer(())
    assert answer.stages[0].error == "no disk"
    assert answer.degraded == {"disk": "no disk", "starting": "the first step"}


def test_a_part_that_works_again_is_degraded_no_more() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.degrade("audit", "the disk is full")
    health.all_here()
    told = health.hello_answer(())
    health.degrade("audit", None)
    health.degrade("audit", None)
    assert told.degraded == {"audit": "the disk is full"}
    assert health.hello_answer(()).degraded == {}


def test_until_all_is_here_hello_says_at_which_stage_coming_up_is() -> None:
    health = Health(boot_id="b", state_dir="/s")
    with health.stage("storage"):
        assert health.hello_answer(()).degraded == {"starting": "storage"}
        with health.stage("audit"):
            assert health.hello_answer(()).degraded == {"starting": "storage, audit"}
    health.all_here()
    assert health.hello_answer(()).degraded == {}


def test_a_change_of_what_does_not_work_is_told_once() -> None:
    told: list[dict[str, str]] = []
    health = Health(boot_id="b", state_dir="/s", on_change=told.append)
    health.degrade("audit", None)
    health.degrade("audit", "full")
    health.degrade("audit", "full")
    health.degrade("clock", "behind")
    health.degrade("audit", None)
    assert told == [{"audit": "full"}, {"audit": "full", "clock": "behind"}, {"clock": "behind"}]


def test_stages_are_told_by_the_clock_that_is_never_set() -> None:
    clock, monotonic = Clock(100.0), Clock(10.0)
    health = Health(boot_id="b", state_dir="/s", clock=clock, monotonic=monotonic)
    monotonic.now = 12.0
    with health.stage("disk"):
        clock.now = 5000.0
        monotonic.now = 13.0
    ((stage, began),) = health.timed
    assert (stage.name, began, health.made_at, health.ready_at) == ("disk", 12.0, 10.0, None)
    health.all_here()
    assert health.ready_at == 13.0


def test_hello_tells_who_answers() -> None:
    answer = Health(boot_id="b", state_dir="/s").hello_answer(("events",), protocol=1)
    assert (answer.protocol, answer.version, answer.boot_id, answer.features) == (
        1,
        coworkd.__version__,
        "b",
        ("events",),
    )


def test_info_asks_its_sources() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources(launcher_pid=lambda: None))
    info = trio.run(health.info)
    assert (info.pid, info.launcher_pid, info.bubblewrap) == (os.getpid(), 0, "0.8.0")
    assert (info.state_dir, info.profiles, info.endpoints) == ("/s", ("default", "strict"), ("unix:///s",))


def test_stats_counts_at_the_moment_of_the_call() -> None:
    monotonic = Clock(10.0)
    health = Health(boot_id="b", state_dir="/s", monotonic=monotonic)
    health.attach(sources())
    monotonic.now = 12.5
    stats = trio.run(health.stats)
    assert (stats.uptime_s, stats.links, stats.sessions, stats.processes) == (2.5, 2, 3, {"running": 4})
    assert (stats.started_total, stats.start_errors_total, stats.spool_bytes, stats.audit_records) == (5, 6, 7, 8)
    assert set(stats.rss_bytes) == {"coworkd", "launcher"}


def test_stats_leaves_out_a_launcher_that_is_away() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources(launcher_pid=lambda: None))
    assert set(trio.run(health.stats).rss_bytes) == {"coworkd"}


def test_doctor_is_passed_on() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources())
    assert trio.run(health.doctor).findings == (FINDING,)


def test_every_count_has_its_place() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources(egress_pid=lambda: os.getpid()))
    stats = trio.run(health.stats)
    assert (stats.audit_syncs_total, stats.audit_sync_s_total, stats.audit_sync_max_s) == (3, 0.5, 0.25)
    assert (stats.spool_memory_bytes, stats.spool_memory_limit_bytes) == (3, 256)
    assert (stats.output_bytes, stats.streams, stats.requests_total) == (9, 10, 12)
    assert (stats.events_total, stats.events_missed_total) == (13, 14)
    assert (stats.egress, stats.warm, stats.pressure) == ({"connections": 1}, {"waiting": 1}, {"memory": 0.5})
    programs = {"coworkd", "launcher", "egress"}
    assert set(stats.rss_bytes) == set(stats.pss_bytes) == set(stats.fds) == set(stats.threads) == programs


def test_a_launcher_that_is_away_has_no_counts() -> None:
    async def away() -> dict[str, int]:
        raise Unavailable("the launcher is away")

    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources())
    assert trio.run(health.stats).warm == {"waiting": 1}
    health.attach(sources(warm=away))
    assert trio.run(health.stats).warm == {}


def test_a_launcher_that_hangs_does_not_keep_the_pulse_from_beating() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources(warm=trio.sleep_forever))

    async def main() -> None:
        health.pulse = Pulse(trio.current_time)
        with trio.move_on_after(60.0):
            await health.beat()
        assert health.pulse.turned_ago_s <= BEAT_S
        assert health.pulse.counted is not None
        assert (health.pulse.counted.stats.links, health.pulse.counted.stats.warm) == (2, {})

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_report_is_passed_on() -> None:
    health = Health(boot_id="b", state_dir="/s")
    health.attach(sources())
    assert trio.run(health.report, Report(with_names=True)).parts[0].source == "True"


def test_the_pulse_beats_before_there_is_anything_to_count() -> None:
    health = Health(boot_id="b", state_dir="/s")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(health.beat)
            await trio.sleep(1.5)
            assert health.pulse.counted is None
            health.attach(sources())
            await trio.sleep(1.0)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert health.pulse.counted is not None
    assert health.pulse.counted.stats.requests_total == 12
