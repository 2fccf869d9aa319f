"""`coworkctl ps` and `coworkctl kill`."""

from __future__ import annotations

import argparse
import shlex
import sys

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import print_table, shown, span
from coworkd.model.process import ProcessInfo

COMMAND_COLUMN_CHARACTERS = 60


def ps(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.process_list(session=args.session)
        now = client.ping().time
    if args.json:
        print(dump(answer))
        return 0
    print_table(
        ("PROCESS", "SESSION", "STATE", "PID", "RAN", "COMMAND"),
        [(p.process, p.session, _state(p), p.pid, _ran(p, now), _command(p)) for p in answer.processes],
    )
    if answer.omitted:
        print(f"coworkctl: {answer.omitted} older ones are not shown; --session NAME asks for fewer", file=sys.stderr)
    return 0


def kill(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        if args.signal is not None:
            number = int(args.signal) if args.signal.isdigit() else args.signal
            client.process_signal(process=args.process, signal=number)
            done = f"signal {args.signal} sent to {args.process}"
        else:
            client.process_kill(process=args.process, grace_s=args.grace)
            grace_s = 5.0 if args.grace is None else args.grace
            record = client.process_wait(process=args.process, timeout_s=grace_s + 10)
            done = f"{args.process} ended: {record.exit.reason}"
    print(dump({"process": args.process}) if args.json else done)
    return 0


def _state(process: ProcessInfo) -> str:
    if process.exit is None:
        return process.state
    ended = process.exit.exit
    how = ended.signal if ended.signal is not None else ended.code
    return f"{ended.reason} {how}" if how is not None else ended.reason


def _ran(process: ProcessInfo, now: float) -> str:
    return span((process.exit.ended_at if process.exit else now) - process.started_at)


def _command(process: ProcessInfo) -> str:
    text = shown(shlex.join(argument.decode("utf-8", "backslashreplace") for argument in process.argv))
    return text if len(text) <= COMMAND_COLUMN_CHARACTERS else text[: COMMAND_COLUMN_CHARACTERS - 1] + "…"
