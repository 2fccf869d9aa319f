"""The words of `coworkctl storage`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_storage(commands: Subparsers) -> None:
    """The verbs of the session disk."""
    storage = add_command(commands, "storage", None, "look at the session disk, trim it and let it grow")
    verbs = storage.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    add_command(
        verbs, "usage", "control_storage:usage", "show what there is and what is left; ends with 1 where it is not ok"
    )
    add_command(verbs, "trim", "control_storage:trim", "tell the device what is free")
    grow = add_command(verbs, "grow", "control_storage:grow", "make the file system as large as its device")
    grow.add_argument(
        "size",
        nargs="?",
        type=parse_size,
        metavar="SIZE",
        help="of a loop disk: what its file grows to first, such as 20G",
    )


def parse_size(text: str) -> int:
    """Bytes, from text such as `20G`. Raises `ArgumentTypeError`."""
    # Imported where it is needed: parsing a command line that has no size in it stays light.
    from coworkd.settings import BadValue
    from coworkd.settings.values import size

    try:
        amount: int = size()(int(text) if text.isdecimal() else text)
    except BadValue as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return amount
