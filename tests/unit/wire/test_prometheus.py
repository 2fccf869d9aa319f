"""Stats in the text format of Prometheus, read back by a strict reader."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from coworkd.model.calls import Stats
from coworkd.wire.prometheus import State, compose_metrics
from tests.unit.wire.exposition import parse_exposition

STATS = Stats(
    uptime_s=12.5,
    links=2,
    sessions=3,
    processes={"running": 4, "exited": 5},
    started_total=6,
    start_errors_total=7,
    spool_bytes=8 << 20,
    rss_bytes={"coworkd": 41943040, "launcher": 10485760},
    audit_records=9,
    pss_bytes={"coworkd": 30000000},
    fds={"coworkd": 20},
    threads={"coworkd": 3},
    output_bytes=1 << 40,
    requests_total=10,
    streams=11,
    events_total=12,
    events_missed_total=13,
    audit_syncs_total=14,
    audit_sync_s_total=0.25,
    audit_sync_max_s=0.125,
    egress={
        "connections": 1,
        "connections_total": 2,
        "refused_total": 3,
        "sent_bytes": 4,
        "received_bytes": 5,
        "unrecorded": 6,
    },
    warm={"standing": 2},
    pressure={"memory": 1.5},
    loop_lag_s=0.001,
    idle_for_s=60.0,
)
STATE = State(version="1.2", ready=True, degraded=("egress", "storage"), turned_ago_s=0.5, counted_ago_s=3.0)


def test_every_number_of_stats_is_told() -> None:
    told = parse_exposition(compose_metrics(STATS, STATE))
    values = {value for metric in told.values() for value in metric.samples.values()}
    numbers = [
        number
        for name, value in msgspec.structs.asdict(STATS).items()
        for number in (value.values() if isinstance(value, dict) else [value])
        if name != "pressure"
    ]
    assert values.issuperset(numbers)
    assert told["coworkd_pressure_ratio"].by("resource") == {"memory": 0.015}


def test_a_map_becomes_a_label() -> None:
    told = parse_exposition(compose_metrics(STATS, STATE))
    assert told["coworkd_processes"].by("state") == {"exited": 5, "running": 4}
    assert told["coworkd_resident_bytes"].by("program") == {"coworkd": 41943040, "launcher": 10485760}
    assert told["coworkd_degraded"].by("part") == {"egress": 1, "storage": 1}


def test_what_only_grows_is_a_counter() -> None:
    told = parse_exposition(compose_metrics(STATS, STATE))
    assert {name for name, metric in told.items() if metric.kind == "counter"} == {
        "coworkd_requests_total",
        "coworkd_processes_started_total",
        "coworkd_process_start_errors_total",
        "coworkd_events_total",
        "coworkd_events_missed_total",
        "coworkd_audit_records_total",
        "coworkd_audit_syncs_total",
        "coworkd_audit_sync_seconds_total",
    }


def test_before_anything_was_counted_the_state_is_told() -> None:
    told = parse_exposition(compose_metrics(None, State(version="1", ready=False, degraded=(), turned_ago_s=2.0)))
    assert set(told) == {"coworkd_info", "coworkd_ready", "coworkd_loop_turned_ago_seconds"}
    assert told["coworkd_ready"].value == 0


def test_numbers_are_written_as_the_format_wants_them() -> None:
    odd = msgspec.structs.replace(STATS, uptime_s=math.inf, idle_for_s=1e-9, loop_lag_s=-math.inf)
    told = parse_exposition(compose_metrics(odd, STATE))
    assert told["coworkd_uptime_seconds"].value == math.inf
    assert told["coworkd_loop_lag_seconds"].value == -math.inf
    assert told["coworkd_idle_seconds"].value == 1e-9
    assert "coworkd_output_bytes 1099511627776\n" in compose_metrics(odd, STATE)
    nan = msgspec.structs.replace(STATS, uptime_s=math.nan)
    assert "coworkd_uptime_seconds NaN\n" in compose_metrics(nan, STATE)


@given(st.dictionaries(st.text(), st.integers(0, 1 << 53), min_size=1, max_size=4))
def test_any_key_is_a_label_that_reads_back_the_same(warm: dict[str, int]) -> None:
    told = parse_exposition(compose_metrics(msgspec.structs.replace(STATS, warm=warm), STATE))
    assert told["coworkd_warm"].by("what") == warm
