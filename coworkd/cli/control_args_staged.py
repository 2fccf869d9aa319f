"""The words of `coworkctl changes`, `commit` and `discard`, which stand below `folder` as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_staged(commands: Subparsers) -> None:
    """The verbs of what a staged folder holds back."""
    changes = _add(commands, "changes", "show what a staged folder holds back")
    changes.add_argument("--diff", metavar="PATH", help="show how the text of this path differs instead")
    commit = _add(commands, "commit", "bring what a staged folder holds back to the host")
    _add_paths(commit)
    commit.add_argument("--overwrite", action="store_true", help="even where the host has changed the same meanwhile")
    discard = _add(commands, "discard", "drop what a staged folder holds back")
    _add_paths(discard)
    discard.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _add(commands: Subparsers, verb: str, what: str) -> Any:
    parser = add_command(commands, verb, f"control_staged:{verb}", what)
    parser.add_argument("session", metavar="SESSION")
    parser.add_argument("name", metavar="NAME", help="the folder")
    return parser


def _add_paths(parser: Any) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="*", help="only this, and what lies below it")
