"""`coworkctl policy set` and `coworkctl session policy`: what holds for one session, and how to change it while it lives."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import clock, print_fields, shown
from coworkd.model.calls import EgressLayer
from coworkd.model.errors import InvalidParams
from coworkd.settings.json_lines import parse_json
from coworkd.settings.tables import MAX_FILE_BYTES


def read_settings(path: str | None) -> dict[str, Any] | None:
    """The object in a JSON file; None for none. Raises `InvalidParams`, with file and line where it is not JSON."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidParams(f"{path} cannot be read: {error.strerror}", key="egress", path=path) from error
    tree, _ = parse_json(data, file=path)
    return tree


def set_policy(args: argparse.Namespace) -> int:
    if args.profile is None and args.egress is None and not args.no_egress:
        raise InvalidParams("nothing to set: give --profile, --egress or --no-egress", key="profile")
    with open_client(args) as client:
        answer = client.session_set_policy(
            session=args.session,
            profile=args.profile,
            egress={} if args.no_egress else read_settings(args.egress),
            close_forbidden=not args.keep_open,
        )
    if args.json:
        print(dump(answer))
        return 0
    print(f"the policy of {args.session} is set; {answer.closed} open connections were closed")
    for sentence in answer.narrowed:
        print(f"narrowed: {shown(sentence)}")
    return 0


def show(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_policy(session=args.name)
    if args.json:
        print(dump(answer))
        return 0
    print_fields({"profile": answer.profile, "upstream": answer.upstream})
    for layer in answer.egress:
        for line in layer_lines(layer):
            print(line)
    for allowance in answer.allowances:
        print(f"allowed until {clock(allowance.until)}: {shown(allowance.pattern)}")
    for sentence in answer.narrowed:
        print(f"narrowed: {shown(sentence)}")
    return 0


def layer_lines(layer: EgressLayer) -> list[str]:
    """One settings file of a session, a key a line; a host must be allowed by each such file."""
    lines = [f"settings {shown(layer.source)}"]
    lines.append(f"  allowed   {_listed(layer.allowed)}")
    if layer.denied:
        lines.append(f"  denied    {_listed(layer.denied)}")
    for name, hosts in layer.presets.items():
        lines.append(f"  preset    {shown(name)}: {_listed(hosts)}")
    if layer.allow_private:
        lines.append("  private   addresses of private ranges may be reached")
    if layer.inspected:
        lines.append(f"  inspected {_listed(layer.inspected)}")
    lines.extend(f"  note      {shown(warning)}" for warning in layer.warnings)
    if layer.left_out:
        lines.append(f"  and       {layer.left_out} entries more, which are in the file")
    return lines


def _listed(patterns: Sequence[str]) -> str:
    return shown(" ".join(patterns)) if patterns else "nothing"
