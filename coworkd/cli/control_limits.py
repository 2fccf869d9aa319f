"""`coworkctl session pause|resume|limits|top`: what runs in sessions stands still, has other limits, and what it takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_storage import shown_bytes
from coworkd.cli.control_tables import print_fields, print_table
from coworkd.model.calls_limits import LimitsSet
from coworkd.model.calls_storage import SessionUsage
from coworkd.model.errors import InvalidParams
from coworkd.model.policy import LimitsPolicy, LimitsRequest

_UNKNOWN = "-"
_NONE_AT_ZERO = frozenset(["fsize_max_bytes", "cpu_time_s", "timeout_s"])


def pause(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_pause(session=args.name)
    if args.json:
        print(dump(answer))
        return 0
    waits = (
        "" if answer.frozen else "; one of its commands waits in the kernel, and stands still when that lets go of it"
    )
    print(f"session {args.name} is paused{waits}")
    return 0


def resume(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_resume(session=args.name)
    print(dump(answer) if args.json else f"session {args.name} goes on")
    return 0


def limits(args: argparse.Namespace) -> int:
    """Of a session, or of one command; without a limit, those that hold for the session."""
    request = LimitsRequest(**{name: getattr(args, name, None) for name in LimitsRequest.__struct_fields__})
    given = request != LimitsRequest()
    if (args.process is None) == (args.name is None):
        raise InvalidParams("whose limits? Name a session, or a command by --process", key="name")
    if args.process is not None and not given:
        raise InvalidParams("say what the command is to have, such as --memory-max 512M", key="limits")
    with open_client(args) as client:
        if not given:
            return _show(args, client.session_policy(session=args.name).limits)
        if args.process is not None:
            answer = client.process_set_limits(process=args.process, limits=request)
        else:
            answer = client.session_set_limits(session=args.name, limits=request)
    return _tell(args, answer)


def top(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_usage(session=args.name)
    if args.json:
        print(dump(answer))
        return 0
    print_table(
        ("SESSION", "MEMORY", "PEAK", "PROCESSES", "CPU", "HELD BACK", "READ", "WRITTEN", "OOM KILLS"),
        [_top_row(each) for each in answer.sessions if args.all or each.group is not None],
    )
    counted = [each.group for each in answer.sessions if each.group is not None]
    if any(group.memory_bytes is None or group.pids is None for group in counted):
        print(
            f"coworkctl: {_UNKNOWN} is what no controller of cgroup v2 counts here: see coworkctl doctor",
            file=sys.stderr,
        )
    return 0


def _show(args: argparse.Namespace, held: LimitsPolicy) -> int:
    if args.json:
        print(dump(held))
    else:
        _print_limits({name: getattr(held, name) for name in LimitsPolicy.__struct_fields__})
    return 0


def _tell(args: argparse.Namespace, answer: LimitsSet) -> int:
    if args.json:
        print(dump(answer))
        return 0
    _print_limits(answer.limits)
    for sentence in answer.narrowed:
        print(f"narrowed: {sentence}")
    for sentence in answer.warnings:
        print(f"note: {sentence}")
    return 0


def _print_limits(limits: Mapping[str, Any]) -> None:
    """By the names they are asked for."""
    shown: dict[str, object] = {}
    for name, value in limits.items():
        if not value and name in _NONE_AT_ZERO:
            shown[name.removesuffix("_bytes")] = "no limit"
        elif name.endswith("_bytes") and isinstance(value, int):
            shown[name.removesuffix("_bytes")] = shown_bytes(value)
        else:
            shown[name] = value
    print_fields(shown)


def _top_row(each: SessionUsage) -> tuple[object, ...]:
    group = each.group
    if group is None:
        return (each.session, *[_UNKNOWN] * 8)
    cpu_s = None if group.cpu_user_s is None or group.cpu_system_s is None else group.cpu_user_s + group.cpu_system_s
    return (
        each.session,
        _bytes(group.memory_bytes),
        _bytes(group.memory_peak_bytes),
        _UNKNOWN if group.pids is None else group.pids,
        _seconds(cpu_s),
        _seconds(group.throttled_s),
        _bytes(group.read_bytes),
        _bytes(group.written_bytes),
        _UNKNOWN if group.oom_kills is None else group.oom_kills,
    )


def _bytes(amount: int | None) -> str:
    return _UNKNOWN if amount is None else shown_bytes(amount)


def _seconds(amount: float | None) -> str:
    return _UNKNOWN if amount is None else f"{amount:.1f} s"
