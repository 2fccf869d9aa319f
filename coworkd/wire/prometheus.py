"""Stats as metrics in the text format of Prometheus, version 0.0.4. Pure.

Rules
- Names begin with `coworkd_`, units are seconds and bytes and stand in the name. What only grows is a counter and ends in `_total`, all
  else is a gauge.
- A family is written once, with HELP and TYPE before its samples, in a fixed order; without a sample it is left out.
- Names of labels are ours. Their values are escaped, whatever they hold.

Source: the exposition formats of the Prometheus documentation (text-based format).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from msgspec import Struct

from coworkd.model.calls import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
_PART = re.compile(r"[a-z][a-z_-]*")


class State(Struct, frozen=True, kw_only=True):
    """What there is to tell beside the counts. None is told as nothing."""

    version: str
    ready: bool
    degraded: tuple[str, ...]
    """Parts by name."""
    turned_ago_s: float | None = None
    """How long ago the loop turned."""
    counted_ago_s: float | None = None
    """How old the counts are."""


class Family(NamedTuple):
    """One metric, with a sample for each set of labels."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def compose_metrics(stats: Stats | None, state: State) -> str:
    """The text; without stats what the state tells."""
    counts = [] if stats is None else [*_counts(stats), *_maps(stats), *_egress(stats)]
    return "".join(_lines([*_state(state), *counts]))


def part_names(degraded: Iterable[str]) -> tuple[str, ...]:
    """The first words of what does not work: behind them stand addresses, names of bridges and the like."""
    return tuple(sorted({found[0] if (found := _PART.match(name)) else "other" for name in degraded}))


def _state(state: State) -> Iterator[Family]:
    yield _gauge("coworkd_info", "What answers.", [({"version": state.version}, 1.0)])
    yield _gauge("coworkd_ready", "Whether everything has come up.", [({}, float(state.ready))])
    degraded = [({"part": part}, 1.0) for part in state.degraded]
    yield _gauge("coworkd_degraded", "Parts that do not work as they should.", degraded)
    for name, text, value in (
        ("coworkd_loop_turned_ago_seconds", "How long ago the loop that answers hosts turned.", state.turned_ago_s),
        ("coworkd_counted_ago_seconds", "How old the counts below are.", state.counted_ago_s),
    ):
        yield _gauge(name, text, [] if value is None else [({}, value)])


def _counts(stats: Stats) -> Iterator[Family]:
    for name, text, value in (
        ("uptime_seconds", "How long this coworkd lives.", stats.uptime_s),
        ("loop_lag_seconds", "By how much the loop was late, at most, in the last while.", stats.loop_lag_s),
        ("idle_seconds", "How long nobody asked for anything and no command put anything out.", stats.idle_for_s),
        ("links", "Links that have said hello.", stats.links),
        ("sessions", "Sessions there are.", stats.sessions),
        ("streams", "Streams that are open.", stats.streams),
        ("spool_bytes", "Output that is kept.", stats.spool_bytes),
        ("spool_memory_bytes", "Output that is kept in memory.", stats.spool_memory_bytes),
        ("spool_memory_limit_bytes", "The bound of that.", stats.spool_memory_limit_bytes),
        ("output_bytes", "Output of the commands that are not forgotten, kept or not.", stats.output_bytes),
        ("audit_sync_max_seconds", "The longest that audit records took to be durable.", stats.audit_sync_max_s),
    ):
        yield _gauge(f"coworkd_{name}", text, [({}, value)])
    for name, text, value in (
        ("requests_total", "Requests of all links.", stats.requests_total),
        ("processes_started_total", "Commands that were started.", stats.started_total),
        ("process_start_errors_total", "Commands that could not be started.", stats.start_errors_total),
        ("events_total", "Events that were published.", stats.events_total),
        ("events_missed_total", "Events that a link followed too slowly to get.", stats.events_missed_total),
        ("audit_records_total", "Audit records that were made durable.", stats.audit_records),
        ("audit_syncs_total", "How often audit records were made durable.", stats.audit_syncs_total),
        ("audit_sync_seconds_total", "What making audit records durable took.", stats.audit_sync_s_total),
    ):
        yield Family(f"coworkd_{name}", "counter", text, (({}, value),))


def _maps(stats: Stats) -> Iterator[Family]:
    """Maps of stats: each key becomes the value of a label."""
    for name, label, text, values in (
        ("processes", "state", "Commands, by state.", stats.processes),
        ("resident_bytes", "program", "Resident memory.", stats.rss_bytes),
        ("proportional_bytes", "program", "Resident memory, what is shared divided.", stats.pss_bytes),
        ("fds", "program", "Open descriptors.", stats.fds),
        ("threads", "program", "Threads.", stats.threads),
        ("warm", "what", "Sandboxes made ahead: what waits, and what became of the others.", stats.warm),
        ("pressure_ratio", "resource", "Of the last ten seconds: how long some task waited.", _ratios(stats.pressure)),
    ):
        yield _gauge(f"coworkd_{name}", text, [({label: key}, value) for key, value in sorted(values.items())])


def _egress(stats: Stats) -> Iterator[Family]:
    """Gauges all: what a session has moved goes with the session."""
    for key, name, text in (
        ("connections", "connections_open", "Connections of sessions that are open."),
        ("connections_total", "connections_made", "Connections of the sessions there are, that were let out."),
        ("refused_total", "connections_refused", "Connections of the sessions there are, that were refused."),
        ("sent_bytes", "sent_bytes", "What the sessions there are have sent."),
        ("received_bytes", "received_bytes", "What the sessions there are have received."),
        ("unrecorded", "events_unrecorded", "Events of coworkd-egress that are not durable yet."),
    ):
        values: list[tuple[Labels, float]] = [({}, stats.egress[key])] if key in stats.egress else []
        yield _gauge(f"coworkd_egress_{name}", text, values)


def _ratios(percents: Mapping[str, float]) -> dict[str, float]:
    return {resource: percent / 100 for resource, percent in percents.items()}


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return Family(name, "gauge", text, tuple(samples))


def _lines(families: Iterable[Family]) -> Iterator[str]:
    for family in families:
        if not family.samples:
            continue
        yield f"# HELP {family.name} {_escape(family.help)}\n"
        yield f"# TYPE {family.name} {family.kind}\n"
        for labels, value in family.samples:
            yield f"{family.name}{_labels(labels)} {_number(value)}\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value, quote=True)}"' for name, value in labels.items()) + "}"


def _escape(text: str, *, quote: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quote else escaped


def _number(value: float) -> str:
    """Whole numbers without a point; the shortest that reads back as the same, else. `NaN`, `+Inf` and `-Inf` are theirs."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
