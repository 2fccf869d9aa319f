"""`coworkctl tool …`: agent CLIs and other tools, installed by version and SHA-256."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import clock, print_table, shown
from coworkd.model.calls_tools import ToolInfo
from coworkd.model.names import OsBytes


def install(args: argparse.Namespace) -> int:
    source = None if args.source is None else OsBytes(os.fsencode(args.source))
    with open_client(args) as client:
        answer = client.tool_install(
            name=args.name,
            version=args.version,
            sha256=args.sha256,
            source=source,
            commands=dict(args.command) or None,
            switch=not args.no_switch,
            timeout_s=args.timeout,
        )
    if args.json:
        print(dump(answer))
        return 0
    tool = answer.tool
    state = "in use" if tool.current else "installed, not in use"
    print(f"{shown(tool.name)} {shown(tool.version)} is {state}: {shown(', '.join(tool.commands))}")
    for version in answer.pruned:
        print(f"{shown(tool.name)} {shown(version)} was removed, to keep no more than the configured number")
    return 0


def list_all(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.tool_list()
    if args.json:
        print(dump(answer))
    else:
        _print(answer.tools)
    return 0


def remove(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.tool_remove(name=args.name, version=args.version)
    print(dump(answer) if args.json else f"{args.name} is removed: {shown(', '.join(answer.removed))}")
    return 0


def _print(tools: Sequence[ToolInfo]) -> None:
    print_table(
        ("NAME", "VERSION", "USED", "INSTALLED", "SIZE", "SHA-256", "COMMANDS"),
        [
            (
                tool.name,
                tool.version,
                "*" if tool.current else "",
                clock(tool.installed_at),
                str(tool.size_bytes),
                tool.sha256[:16],
                " ".join(tool.commands),
            )
            for tool in tools
        ],
    )
