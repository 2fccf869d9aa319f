"""`coworkctl changes`, `commit` and `discard`: what staged folders hold back, taken or dropped.

Exit status: 1 where anything that was asked for was not committed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import print_table, shown
from coworkd.client.sync import Client
from coworkd.model.calls import FolderCommitted, StagedChange
from coworkd.model.errors import InvalidParams
from coworkd.model.names import OsBytes

NOT_COMMITTED_STATUS = 1
PAGE = 1000


def changes(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        if args.diff is not None:
            return _diff(client, args)
        found = list(_all_changes(client, args.session, args.name))
    if args.json:
        print(dump(found))
        return 0
    print_table(("CHANGE", "SIZE", "WHAT", "PATH"), [_row(change) for change in found])
    for change in found:
        if change.conflict is not None:
            print(f"conflict: {shown(change.path)}: {shown(change.conflict)}")
    return 0


def commit(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        done = client.folder_commit(
            session=args.session, name=args.name, paths=_paths(args.paths), overwrite=args.overwrite
        )
    if args.json:
        print(dump(done))
    else:
        _tell(done)
    return NOT_COMMITTED_STATUS if done.conflicts or done.failed else 0


def discard(args: argparse.Namespace) -> int:
    if not args.yes:
        _ask(args)
    with open_client(args) as client:
        done = client.folder_discard(session=args.session, name=args.name, paths=_paths(args.paths))
    print(dump(done) if args.json else f"{done.discarded} discarded")
    return 0


def _diff(client: Client, args: argparse.Namespace) -> int:
    path = OsBytes(os.fsencode(args.diff))
    answer = client.folder_changes(session=args.session, name=args.name, limit=1, diff=path)
    if args.json:
        print(dump({"path": path, "diff": answer.diff}))
    elif answer.diff is None:
        print(f"{shown(path)} is no text, or too large to be shown")
    else:
        for line in answer.diff.decode("utf-8", "replace").split("\n")[:-1]:
            # A tab is text; what else would drive the terminal is shown as what it is.
            print("\t".join(shown(part) for part in line.split("\t")))
    return 0


def _all_changes(client: Client, session: str, name: str) -> Iterator[StagedChange]:
    after, more = OsBytes(b""), True
    while more:
        page = client.folder_changes(session=session, name=name, after=after, limit=PAGE)
        yield from page.changes
        more = page.more and bool(page.changes)
        if more:
            after = page.changes[-1].path


def _row(change: StagedChange) -> tuple[object, ...]:
    size = f"{change.old_size}>{change.size}" if change.old_size not in (None, change.size) else str(change.size)
    what: str = change.entry if change.was is None else f"{change.entry}, was {change.was}"
    if change.entries:
        what += f" of {change.entries}"
    path = shown(change.path) if change.before is None else f"{shown(change.path)} (was {shown(change.before)})"
    return change.kind, size, what, path


def _tell(done: FolderCommitted) -> None:
    for result in done.results:
        reason = f": {shown(result.reason)}" if result.reason else ""
        print(f"{shown(result.state).ljust(9)}  {shown(result.path)}{reason}")
    if done.left_out:
        print(f"and {done.left_out} more")
    print(f"{done.committed} committed, {done.conflicts} in conflict, {done.failed} not done")


def _paths(words: list[str]) -> tuple[OsBytes, ...] | None:
    return tuple(OsBytes(os.fsencode(word)) for word in words) or None


def _ask(args: argparse.Namespace) -> None:
    """Raises `InvalidParams` where the answer is not yes, or nobody is there to give one."""
    what = " ".join(shown(path) for path in args.paths) or f"all changes of folder {shown(args.name)}"
    if not sys.stdin.isatty():
        raise InvalidParams(f"discarding {what} cannot be undone: say --yes", key="yes")
    print(f"Discard {what}? This cannot be undone. [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidParams("nothing was discarded", key="yes")
