"""`coworkctl egress presets`: what each preset is on this machine; `--write` makes the file that says so.

Writing asks pip, npm and apt of the machine this runs on, and needs no coworkd. Showing asks coworkd what it uses, and where none is
named or runs, reads the file that one would use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import named_uri, open_client
from coworkd.cli.control_tables import clock, shown
from coworkd.model.calls import EgressPresets

STANDARD_OUTPUT = "-"


def presets(args: argparse.Namespace) -> int:
    return _write(args) if args.write is not None else _show(args)


def _write(args: argparse.Namespace) -> int:
    from coworkd.services.presets import compose_file, resolve_presets, write_presets

    resolved = resolve_presets()
    for note in resolved.notes:
        print(f"coworkctl: {shown(note)}", file=sys.stderr)
    if args.write == STANDARD_OUTPUT:
        sys.stdout.write(compose_file(resolved.table).decode())
        return 0
    write_presets(args.write, resolved.table)
    if args.json:
        print(dump({"file": args.write, "presets": sorted(resolved.table.presets)}))
        return 0
    for name, preset in sorted(resolved.table.presets.items()):
        print(preset_lines(name, preset.hosts, preset.said_by, preset.env))
    print(f"written to {args.write}; a coworkd that runs takes it by: coworkctl call policy.reload")
    return 0


def _show(args: argparse.Namespace) -> int:
    answer = _ask(args)
    if args.json:
        print(dump(answer))
        return 0
    for name, preset in sorted(answer.presets.items()):
        print(preset_lines(name, preset.hosts, preset.made_from, preset.env))
    if answer.file is None:
        print("those of this machine were never resolved: coworkctl egress presets --write")
    else:
        made = f", made {clock(answer.made_at)}" if answer.made_at is not None else ""
        print(f"those of this machine are from {shown(answer.file)}{made}")
    return 0


def _ask(args: argparse.Namespace) -> EgressPresets:
    if named_uri(args) is not None:
        with open_client(args) as client:
            return client.egress_presets()
    from coworkd.config import load_config
    from coworkd.services.policies import describe_presets, read_presets

    file = load_config().presets_file
    return describe_presets(read_presets(file), file)


def preset_lines(name: str, hosts: tuple[str, ...], said_by: tuple[str, ...], env: Mapping[str, str]) -> str:
    """`name  hosts  (who said so)`, or that it came to nothing; below it a line for each variable that it sets in sessions."""
    if not hosts:
        return f"{shown(name)}  allows nothing here"
    head = f"{shown(name)}  {shown(' '.join(hosts))}  ({shown(', '.join(said_by))})"
    return "\n".join((head, *(f"    {shown(variable)}={shown(value)}" for variable, value in env.items())))
