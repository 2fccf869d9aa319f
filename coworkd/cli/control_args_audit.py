"""The command line of `coworkctl audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_audit(commands: Subparsers) -> None:
    audit = add_command(commands, "audit", None, "read the audit log, and prove it whole")
    verbs = audit.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    tail = add_command(verbs, "tail", "control_audit:tail", "show the newest records")
    tail.add_argument("--limit", "-n", type=int, default=100, metavar="N", help="how many (default 100)")
    tail.add_argument("--session", metavar="NAME", help="only those of this session")
    query = add_command(verbs, "query", "control_audit:query", "show the newest records that fit all that is given")
    query.add_argument("--limit", "-n", type=int, default=100, metavar="N", help="how many (default 100)")
    query.add_argument("--session", metavar="NAME", help="only those of this session")
    query.add_argument("--process", metavar="ID", help="only those of this command")
    query.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help='of this kind; "egress." is all of them'
    )
    query.add_argument("--refused", action="store_true", help="only what was not allowed")
    query.add_argument("--since", type=float, metavar="TIME", help="at or after this time, in seconds since the epoch")
    query.add_argument("--until", type=float, metavar="TIME", help="before this time")
    export = add_command(
        verbs, "export", "control_audit:export", "copy the log here; a copy that is there is continued"
    )
    export.add_argument("directory", metavar="DIR", help="where the copy lies; made where it is missing")
    verify = add_command(
        verbs, "verify", "control_audit:verify", "check the chain of all records; status 1 where it is broken"
    )
    verify.add_argument("--copy", metavar="DIR", help="check a copy made by export, without any coworkd")
