"""The words of `coworkctl update`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_update(commands: Subparsers) -> None:
    """The verbs of coworkd's own releases."""
    update = add_command(commands, "update", None, "show which coworkd runs, take another one, or go back")
    verbs = update.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    add_command(verbs, "status", "control_update:status", "show what runs, and what lies beside it")
    apply = add_command(verbs, "apply", "control_update:apply", "take what the update disk holds")
    apply.add_argument("--again", action="store_true", help="also what has turned out bad before")
    rollback = add_command(
        verbs, "rollback", "control_update:rollback", "go back to the release before, or to the image's own"
    )
    rollback.add_argument(
        "to", nargs="?", choices=("0", "a", "b"), metavar="SLOT", help="0, a or b; without it the next best"
    )
    rollback.add_argument("--reason", default="asked for", metavar="TEXT", help="what the audit log says")
    for verb in (apply, rollback):
        verb.add_argument("--later", action="store_true", help="leave running what runs; the next start takes it")
