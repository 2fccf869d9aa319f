"""`coworkctl egress …`: what gets out of sessions, what would, and what did."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import clock, print_table, shown, span
from coworkd.client.sync import Client
from coworkd.model.calls import EgressRecord
from coworkd.model.errors import InvalidParams

REFUSED_STATUS = 1
DEFAULT_PORT = 443
SAME_MOMENT_S = 5.0
"""How far the times of a record and of its event lie apart at most."""
_DURATION = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)(?P<unit>[smhd]?)\Z")
_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]*)\](?P<rest>(?::.*)?)", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_EVENTS = {"egress.decision": "open", "egress.close": "close", "egress.request": "request"}
_UNSAID = {"connection": 0, "protocol": "unknown", "host": "", "port": 0, "rule": None, "reason": ""}


class _Key(NamedTuple):
    """What a record and its event have in common."""

    session: str
    connection: int
    kind: str
    host: str
    path: str


def parse_target(text: str) -> tuple[str, int]:
    """`HOST[:PORT]`, an IPv6 address with a port in brackets; 443 where there is none. Raises `InvalidParams`."""
    if "/" in text:
        raise InvalidParams(f"{text!r} is a URL: write HOST or HOST:PORT", key="host")
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        host, rest = bracketed["host"], bracketed["rest"]
    elif text.startswith("["):
        raise InvalidParams(f"{text!r} has no ']' before its end or its port: write [ADDRESS]:PORT", key="host")
    elif text.count(":") == 1:
        host, rest = text.partition(":")[0], text[text.index(":") :]
    else:
        host, rest = text, ""
    if not host:
        raise InvalidParams(f"{text!r} has no host: write HOST or HOST:PORT", key="host")
    if rest == ":":
        raise InvalidParams(f"{text!r} ends with a colon and no port", key="port")
    return host, DEFAULT_PORT if not rest else _parse_port(rest[1:])


def _parse_port(digits: str) -> int:
    port = int(digits) if _PORT.fullmatch(digits) else 0
    if not 0 < port <= 65535:
        raise InvalidParams(f"{digits[:80]!r} is no port: 1 to 65535", key="port")
    return port


def parse_duration(text: str, option: str = "--for") -> float:
    """`90`, `90s`, `10m`, `2h`, `1d` in seconds. Raises `InvalidParams`."""
    match = _DURATION.match(text)
    if match is None or float(match["count"]) == 0:
        raise InvalidParams(
            f"{option} {text!r}: write a time such as 90s, 10m, 2h or 1d", key=option.removeprefix("--")
        )
    return float(match["count"]) * _UNIT_S[match["unit"]]


def check(args: argparse.Namespace) -> int:
    """Status 1 where it would be refused."""
    host, port = parse_target(args.target)
    with open_client(args) as client:
        answer = client.egress_check(host=host, port=port, session=args.session, profile=args.profile)
    if args.json:
        print(dump(answer))
    else:
        print(f"{'allowed' if answer.allowed else 'REFUSED'}  {shown(place(answer.host, answer.port))}")
        print(f"  rule    {shown(answer.rule) if answer.rule is not None else 'none allows it'}")
        if not answer.allowed:
            print(f"  reason  {shown(answer.reason)}")
    return 0 if answer.allowed else REFUSED_STATUS


def log(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        # Subscribed to first, so that nothing falls between the records and what follows them.
        events = _follow(client) if args.follow else iter(())
        answer = client.egress_log(session=args.session, limit=args.limit, refused_only=args.refused)
        for record in answer.records:
            _print_record(record, as_json=args.json)
        known = {_key(record): record.at for record in answer.records}
        for record in events:
            seen_at = known.pop(_key(record), None)
            if seen_at is not None and abs(record.at - seen_at) < SAME_MOMENT_S:
                continue
            if args.session in (None, record.session) and (record.kind == "refused" or not args.refused):
                _print_record(record, as_json=args.json)
    return 0


def record_line(record: EgressRecord) -> str:
    """`time session verdict protocol host:port …` of one record."""
    head = f"{clock(record.at)} {shown(record.session)}"
    where = f"{record.protocol} {shown(place(record.host, record.port))}"
    way = f" via {shown(record.upstream)}" if record.upstream not in ("", "direct") else ""
    if record.kind == "open":
        return f"{head} allowed {where}{way} by {shown(record.rule)}"
    if record.kind == "refused":
        times = f" ({record.count} times)" if record.count > 1 else ""
        return f"{head} REFUSED {where}{way}: {shown(record.reason)}{times}"
    if record.kind == "request":
        return f"{head} request {where} {shown(record.method)} {shown(record.path)} {record.status}"
    why = f": {shown(record.reason)}" if record.reason else ""
    moved = f"{record.sent_bytes} bytes out, {record.received_bytes} in"
    return f"{head} closed  {where}{way} {moved}, {span(record.took_s)}{why}"


def allow(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.egress_allow(session=args.session, host=args.host, duration_s=parse_duration(args.duration))
    print(
        dump(answer) if args.json else f"{shown(answer.host)} is allowed for {args.session} until {clock(answer.until)}"
    )
    return 0


def status(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.egress_status()
    if args.json:
        print(dump(answer))
        return 0
    print(f"coworkd-egress: {f'pid {answer.pid}' if answer.pid else 'AWAY, nothing gets out'}")
    for sentence in answer.degraded:
        print(f"degraded: {shown(sentence)}")
    if answer.unrecorded:
        print(f"{answer.unrecorded} events wait to be recorded; their connections wait too")
    print_table(
        ("SESSION", "OPEN", "OPENED", "REFUSED", "BYTES OUT", "BYTES IN"),
        [
            (s.session, s.connections, s.connections_total, s.refused_total, s.sent_bytes, s.received_bytes)
            for s in answer.sessions
        ],
    )
    return 0


def place(host: str, port: int) -> str:
    """`HOST:PORT` for people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _follow(client: Client) -> Iterator[EgressRecord]:
    subscription = client.events()
    return (
        record_of(event.name, event.at, event.params) for event in subscription if event.name in _EVENTS
    )  # fmt: skip


def record_of(name: str, at: float, params: Mapping[str, Any]) -> EgressRecord:
    """What `egress.log` would tell of an event."""
    said = {key: params[key] for key in EgressRecord.__struct_fields__ if params.get(key) is not None}
    kind = "refused" if params.get("allowed") is False else _EVENTS[name]
    return EgressRecord(**{"session": "", **_UNSAID, **said, "at": at, "kind": kind})


def _key(record: EgressRecord) -> _Key:
    return _Key(record.session, record.connection, record.kind, record.host, record.path)


def _print_record(record: EgressRecord, *, as_json: bool) -> None:
    print(dump(record) if as_json else record_line(record), flush=True)
