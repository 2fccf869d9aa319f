"""The words of `coworkctl session usage|prune|retention`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from coworkd.cli.control_args_storage import parse_size
from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers

WHAT = ("caches", "tmp", "stages")
"""Those of `calls_storage.PruneWhat`, which is not imported for a word."""


def add_session_disk(verbs: Subparsers) -> None:
    """What sessions take on the disk, below `coworkctl session`."""
    usage = add_command(verbs, "usage", "control_session_disk:usage", "show what sessions take on the disk")
    usage.add_argument("name", nargs="?", metavar="NAME", help="default: all")
    prune = add_command(verbs, "prune", "control_session_disk:prune", "delete caches and temporary files of sessions")
    prune.add_argument("name", nargs="?", metavar="NAME", help="default: all")
    prune.add_argument(
        "--what",
        type=parse_what,
        default=("caches", "tmp"),
        metavar="caches,tmp,stages",
        help="default caches,tmp; stages: what staged folders hold back, of those that are not mounted",
    )
    prune.add_argument("--older-than", metavar="TIME", help="only what was not touched for 90s, 10m, 2h or 30d")
    prune.add_argument("--larger-than", type=parse_size, default=0, metavar="SIZE", help="only larger files: 10M, 1G")
    prune.add_argument("--dry-run", action="store_true", help="show what would go")
    retention = add_command(
        verbs, "retention", "control_session_disk:retention", "show which sessions the retention policy names"
    )
    retention.add_argument("--apply", action="store_true", help="announce them, and delete those whose time has come")


def parse_what(text: str) -> tuple[str, ...]:
    """Words with commas between. Raises `ArgumentTypeError`."""
    words = text.split(",")
    for word in words:
        if word not in WHAT:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(WHAT)}")
    return tuple(each for each in WHAT if each in words)
