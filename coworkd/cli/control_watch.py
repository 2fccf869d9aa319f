"""`coworkctl watch`: what sessions do, a line each, as it happens: commands, changes in folders, what gets out, what asks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import shown
from coworkd.model.event import Event

ARGV_CHARACTERS = 200
Params = Mapping[str, Any]


def watch(args: argparse.Namespace) -> int:
    """Until interrupted."""
    with open_client(args) as client:
        subscription = client.events(after=args.after)
        missed = 0
        for event in subscription:
            if subscription.missed > missed:
                missed = subscription.missed
                print(f"coworkctl: {missed} events were missed so far", file=sys.stderr)
            if args.session not in (None, event.params.get("session")):
                continue
            line = dump({"seq": event.seq, "at": event.at, "name": event.name, "params": event.params})
            if not args.json:
                line = event_line(event) or ""
            if line:
                print(line, flush=True)
    return 0


def event_line(event: Event) -> str | None:
    """`HH:MM:SS session process what`; None for what is no session's doing."""
    describe = _DESCRIBED.get(event.name)
    params = event.params
    if describe is None or "session" not in params:
        return None
    at = params.get("changed_at", event.at)
    when = time.strftime("%H:%M:%S", time.localtime(at if isinstance(at, int | float) else event.at))
    who = f"{shown(params['session'])} {shown(params.get('process') or '-')}"
    return f"{when} {who} {describe(params)}"


def _activity(params: Params) -> str:
    where = f"[{shown(params.get('folder'))}]"
    change, count = params.get("change"), params.get("count")
    path = shown(params.get("path"))
    if change == "lost":
        return f"{where} {f'{count} changes' if count else 'changes'} were not seen"
    if change == "many":
        return f"{where} {count} changes in {path or 'it'}"
    to = f" -> {shown(params['to'])}" if "to" in params else ""
    size = f" ({params['size']} bytes)" if "size" in params else ""
    times = f", {count} times" if count else ""
    return f"{where} {shown(change)} {path}{to}{size}{times}"


def _start(params: Params) -> str:
    return f"$ {_words(params.get('argv') or ())}"


def _exit(params: Params) -> str:
    exit = params.get("exit") or {}
    said = f"signal {exit['signal']}" if exit.get("signal") else f"status {exit.get('code')}"
    reason = exit.get("reason")
    return f"ended: {shown(said)}{f', {shown(reason)}' if reason not in ('exited', 'signaled') else ''}"


def _decision(params: Params) -> str:
    where = f"{shown(params.get('host'))}:{shown(params.get('port'))}"
    if params.get("allowed"):
        return f"network {where} allowed"
    times = f" ({params['count']} times)" if params.get("count") else ""
    return f"network {where} REFUSED: {shown(params.get('reason'))}{times}"


def _requested(params: Params) -> str:
    paths = ", ".join(shown(path) for path in (params.get("paths") or ())[:3])
    more = f" and {params['count'] - 3} more" if params.get("count", 0) > 3 else ""
    return f"[{shown(params.get('folder'))}] ASKS to delete {paths}{more}: coworkctl approve {shown(params.get('approval'))}"


def _closed(params: Params) -> str:
    return f"[{shown(params.get('folder'))}] {shown(params.get('approval'))} answered: {shown(params.get('answer'))}"


def _refused(params: Params) -> str:
    return f"[{shown(params.get('folder'))}] {params.get('count')} deletes refused: {shown(params.get('reason'))}"


def _folder(what: str) -> Callable[[Params], str]:
    def describe(params: Params) -> str:
        rest = "".join(f", {shown(params[key])}" for key in ("mode", "error") if params.get(key))
        return f"[{shown(params.get('name'))}] {what}{rest}"

    return describe


def _words(argv: Sequence[Any]) -> str:
    text = " ".join(shown(word) for word in argv)
    return text if len(text) <= ARGV_CHARACTERS else f"{text[:ARGV_CHARACTERS]}..."


_DESCRIBED: dict[str, Callable[[Params], str]] = {
    "activity": _activity,
    "process.start": _start,
    "process.exit": _exit,
    "egress.decision": _decision,
    "approval.requested": _requested,
    "approval.closed": _closed,
    "approval.refused": _refused,
    "folder.mounted": _folder("mounted"),
    "folder.unmounted": _folder("unmounted"),
    "folder.mode": _folder("is now"),
    "folder.failed": _folder("FAILED"),
    "session.created": lambda params: "session made",
    "session.deleted": lambda params: "session removed",
    "session.paused": lambda params: "session paused",
    "session.resumed": lambda params: "session goes on",
    "session.limits": lambda params: "session has other limits",
    "session.oom": lambda params: f"killed for memory: the limit was that of the {shown(params.get('scope'))}",
    "session.limit": lambda params: f"reached its {shown(params.get('limit'))}",
    "session.pressure": lambda params: f"waits for {shown(params.get('kind'))}: {shown(params.get('level'))}",
}
