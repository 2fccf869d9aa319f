"""The words of `coworkctl tool`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_tools(commands: Subparsers) -> None:
    """The verbs of tools."""
    tool = add_command(commands, "tool", None, "install agent CLIs and other tools by version, list and remove them")
    verbs = tool.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    install = add_command(
        verbs,
        "install",
        "control_tools:install",
        "install a version from the share, or switch to one that is installed",
    )
    install.add_argument("name", metavar="NAME", help="what it is called: lower-case letters, digits and '-'")
    install.add_argument("version", metavar="VERSION")
    install.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a file below the share: the tool, or a tar or tar.gz of it"
    )
    install.add_argument("--sha256", required=True, metavar="HEX", help="of the file, as sha256sum tells it")
    install.add_argument(
        "--command",
        action="append",
        default=[],
        type=parse_command,
        metavar="NAME=PATH",
        help="a command of it and where it is in the archive; more than one may be given",
    )
    install.add_argument("--no-switch", action="store_true", help="leave the version in use as it is")
    install.add_argument("--timeout", type=float, metavar="S", help="how long the share may take (default 300)")
    add_command(verbs, "list", "control_tools:list_all", "list what is installed; * marks the versions in use")
    remove = add_command(verbs, "rm", "control_tools:remove", "remove a version, or all of a tool")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("version", nargs="?", metavar="VERSION", help="without it all versions")


def parse_command(text: str) -> tuple[str, str]:
    """`NAME=PATH`. Raises `ArgumentTypeError`."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path
