"""The words of `coworkctl doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_doctor(commands: Subparsers) -> None:
    """Without a verb every requirement is checked; the verbs look at one trouble."""
    doctor = add_command(
        commands, "doctor", "control_daemon:doctor", "check every requirement, and say how to mend each"
    )
    doctor.add_argument(
        "--bundle",
        metavar="FILE",
        help="write all that a report of an error wants into a new file, without secrets (.tar.gz)",
    )
    doctor.add_argument("--config", metavar="F", help="with --bundle: coworkd's configuration, if not the usual one")
    doctor.add_argument("--with-names", action="store_true", help="with --bundle: call sessions by their names")
    doctor.add_argument(
        "--with-commands", action="store_true", help="with --bundle: arguments and paths of commands as well"
    )
    verbs = doctor.add_subparsers(dest="verb", required=False, metavar="VERB", parser_class=Parser)
    folder = add_command(
        verbs, "folder", "control_doctor:folder", "say why a session may not do what it should with a folder"
    )
    folder.add_argument("session", metavar="SESSION")
    folder.add_argument("path", metavar="PATH", help="as the session sees it, below a folder's name, or on the host")
    denied = add_command(
        verbs, "denied", "control_doctor:denied", "show what was refused lately, by which wall, and what helps"
    )
    denied.add_argument("session", nargs="?", metavar="SESSION", help="only this session's")
    denied.add_argument("--limit", "-n", type=int, default=20, metavar="N", help="how many (default 20)")
