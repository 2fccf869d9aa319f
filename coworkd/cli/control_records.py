"""`coworkctl events` and `logs`, and an audit record in one line: what happened."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import clock, print_fields, shown
from coworkd.model.calls import LogLine

_HEAD_KEYS = ("seq", "at", "kind", "prev", "hash")


def record_line(record: Mapping[str, Any]) -> str:
    """`seq time kind key=value …` of one audit record, without its hashes."""
    at = record.get("at")
    when = clock(float(at)) if isinstance(at, int | float) else str(at)
    rest = " ".join(f"{key}={shown(value)}" for key, value in record.items() if key not in _HEAD_KEYS)
    return f"{record.get('seq', '-'):>6} {when} {shown(record.get('kind'))} {rest}".rstrip()


def events(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        subscription = client.events(after=args.after)
        missed = 0
        for event in subscription:
            if subscription.missed > missed:
                missed = subscription.missed
                print(f"coworkctl: {missed} events were missed so far", file=sys.stderr)
            if args.json:
                print(dump({"seq": event.seq, "at": event.at, "name": event.name, "params": event.params}), flush=True)
            else:
                rest = " ".join(f"{key}={shown(value)}" for key, value in event.params.items())
                print(f"{event.seq:>6} {clock(event.at)} {shown(event.name)} {rest}".rstrip(), flush=True)
    return 0


def logs(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.logs(limit=args.limit, component=args.component, level=args.level)
    if args.json:
        print(dump(answer))
        return 0
    if answer.dropped:
        print(f"coworkctl: {answer.dropped} older lines are no longer kept", file=sys.stderr)
    for line in answer.lines:
        print(log_line(line))
    return 0


def log_line(line: LogLine) -> str:
    """`YYYY-MM-DD HH:MM:SS LEVEL [component] message key=value …`"""
    fields = "".join(f" {shown(key)}={shown(value)}" for key, value in line.fields.items())
    return f"{clock(line.at)} {shown(line.level).upper():7} [{shown(line.component)}] {shown(line.message)}{fields}"


def print_map(fields: Mapping[str, Any]) -> None:
    """A map for people: lists in one line, nested maps as JSON."""
    print_fields({key: _one_line(value) for key, value in fields.items()})


def _one_line(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value) or "-"
    return dump(value) if isinstance(value, dict) else value
