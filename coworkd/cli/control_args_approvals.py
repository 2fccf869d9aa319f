"""The words of `coworkctl approve` and `watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_approvals(commands: Subparsers) -> None:
    """Deletes that wait for a person, and what sessions do."""
    approve = add_command(
        commands, "approve", "control_approve:approve", "list the deletes that wait for a person, or answer them"
    )
    approve.add_argument("approval", nargs="?", metavar="APPROVAL", help="which; without an answer you are asked here")
    approve.add_argument(
        "answer",
        nargs="?",
        choices=["once", "session", "deny"],
        metavar="ANSWER",
        help="once: what it lists; session: all deletes in this folder until it is mounted anew; deny",
    )
    approve.add_argument("--session", metavar="NAME", help="only those of this session")
    approve.add_argument("--watch", action="store_true", help="ask here as they come, until interrupted")
    watch = add_command(commands, "watch", "control_watch:watch", "show what sessions do, as it happens")
    watch.add_argument("session", nargs="?", metavar="SESSION", help="only this one")
    watch.add_argument("--after", type=int, metavar="SEQ", help="begin behind this event, with those still kept")
