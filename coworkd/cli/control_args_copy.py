"""The words of `coworkctl cp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_copy(commands: Subparsers) -> None:
    """Files and trees into a session and out of it."""
    copy = add_command(commands, "cp", "control_copy:copy", "copy files into a session, or out of it")
    copy.add_argument("source", metavar="SRC", help="a path here, - for standard input, or SESSION:PATH")
    copy.add_argument("target", metavar="DST", help="the same; exactly one of the two is SESSION:PATH")
    copy.add_argument("--recursive", "-r", action="store_true", help="copy directories with all that is in them")
    copy.add_argument("--quiet", "-q", action="store_true", help="show no progress")
