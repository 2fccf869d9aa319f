"""`coworkctl session usage|prune|retention`: what sessions take on the disk."""

from __future__ import annotations

import argparse

from coworkd.cli.control_egress import parse_duration
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_storage import shown_bytes
from coworkd.cli.control_tables import clock, print_table
from coworkd.model.calls_storage import RetentionEntry, SessionUsage


def usage(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_usage(session=args.name)
    if args.json:
        print(dump(answer))
        return 0
    print_table(
        ("SESSION", "HOME", "STAGED", "FILES", "LIMIT", "IDLE SINCE", "MEASURED"),
        [_usage_row(each) for each in answer.sessions],
    )
    return 0


def prune(args: argparse.Namespace) -> int:
    older_than_s = parse_duration(args.older_than, "--older-than") if args.older_than else 0.0
    with open_client(args) as client:
        answer = client.session_prune(
            session=args.name,
            what=args.what,
            older_than_s=older_than_s,
            larger_than_bytes=args.larger_than,
            dry_run=args.dry_run,
        )
    if args.json:
        print(dump(answer))
        return 0
    if answer.entries:
        print_table(
            ("SESSION", "SIZE", "FILES", "PATH"),
            [(each.session, shown_bytes(each.bytes), each.files, bytes(each.path)) for each in answer.entries],
        )
    if answer.left_out:
        print(f"and {answer.left_out} more")
    verb = "would be freed" if args.dry_run else "freed"
    print(f"{shown_bytes(answer.freed_bytes)} in {answer.files} files {verb}")
    return 0


def retention(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_retention(dry_run=not args.apply)
    if args.json:
        print(dump(answer))
    elif answer.entries:
        print_table(("SESSION", "SIZE", "GOES", "WHY"), [_retention_row(each) for each in answer.entries])
    else:
        print("the retention policy names no session")
    return 0


def _usage_row(each: SessionUsage) -> tuple[object, ...]:
    at_least = "" if each.complete else "≥ "
    never = not each.measured_at
    return (
        each.session,
        "-" if never else at_least + shown_bytes(each.home_bytes),
        "-" if never else at_least + shown_bytes(each.stage_bytes),
        "-" if never else each.files,
        shown_bytes(each.limit_bytes) if each.limit_bytes else "none",
        clock(each.idle_since),
        "never" if never else clock(each.measured_at),
    )


def _retention_row(each: RetentionEntry) -> tuple[object, ...]:
    if each.deleted:
        goes = "is deleted"
    elif each.goes_at is not None:
        goes = clock(each.goes_at)
    else:
        goes = "named"
    return (each.session, shown_bytes(each.bytes), goes, each.reason)
