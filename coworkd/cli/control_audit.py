"""`coworkctl audit …`: what happened, copied and proven."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coworkd.auditlog import Verdict
from coworkd.auditlog import verify as verify_files
from coworkd.auditlog.rotation import log_files
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_records import record_line
from coworkd.cli.control_tables import shown
from coworkd.model.errors import InvalidState, NotFound

if TYPE_CHECKING:
    from coworkd.client.sync import Client
    from coworkd.model.calls import AuditRecords

BROKEN_STATUS = 1
_BLOCK_BYTES = 1024 * 1024


def tail(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        return _show(args, client.audit_tail(limit=args.limit, session=args.session))


def query(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        found = client.audit_query(
            limit=args.limit,
            session=args.session,
            process=args.process,
            kinds=tuple(args.kind),
            refused=args.refused,
            since=args.since,
            until=args.until,
        )
    return _show(args, found)


def _show(args: argparse.Namespace, found: AuditRecords) -> int:
    for record in found.records:
        print(dump(record) if args.json else record_line(record))
    if found.truncated:
        print("coworkctl: more records fit, but not into one answer: ask for fewer, or audit export", file=sys.stderr)
    return 0


def verify(args: argparse.Namespace) -> int:
    if args.copy is not None:
        return _tell(args, _verify_copy(Path(args.copy)))
    with open_client(args) as client:
        verified = client.audit_verify()
    return _tell(args, Verdict(**{name: getattr(verified, name) for name in Verdict.__struct_fields__}))


def export(args: argparse.Namespace) -> int:
    """Status 1 where the copy does not prove itself, or does not end where the log did."""
    directory = Path(args.directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_client(args) as client:
        head = _copy(client, directory)
    verdict = _verify_copy(directory)
    status = _tell(args, verdict)
    if status == 0 and verdict.head != head:
        print(f"the copy ends with {shown(verdict.head)}, the log with {shown(head)}", file=sys.stderr)
        return BROKEN_STATUS
    return status


def _copy(client: Client, directory: Path) -> str:
    """Append what is missing to the copy; returns the hash that the log ended with. Raises `InvalidState` for a copy of another log."""
    file, offset = _resume(directory)
    try:
        piece = client.audit_export(file=file, offset=offset)
    except NotFound:
        # What the copy ends with is kept there no more: the copy keeps it, and goes on with the oldest there is.
        piece = client.audit_export()
    while piece.file is not None:
        _append(directory / _checked(piece.file), piece.offset, piece.data)
        if piece.next_file is None:
            break
        piece = client.audit_export(file=piece.next_file, offset=piece.next_offset)
    return piece.head


def _resume(directory: Path) -> tuple[str | None, int]:
    """The newest file of the copy, and its size."""
    names = log_files(os.listdir(directory))
    return (names[-1], (directory / names[-1]).stat().st_size) if names else (None, 0)


def _checked(name: str) -> str:
    """A name a guest said is a file's in the directory, and a file of a log, or it is refused."""
    if log_files([name]) != [name]:
        raise InvalidState(f"coworkd named a file of its audit log {name!r}, which is no such name")
    return name


def _append(path: Path, offset: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        if os.fstat(fd).st_size != offset:
            raise InvalidState(
                f"{path} has {os.fstat(fd).st_size} bytes, and {offset} were copied: is it another log's?"
            )
        stream.seek(offset)
        stream.write(data)
        stream.flush()
        os.fsync(fd)


def _verify_copy(directory: Path) -> Verdict:
    return verify_files((name, _blocks(directory / name)) for name in log_files(os.listdir(directory)))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _tell(args: argparse.Namespace, verdict: Verdict) -> int:
    ok = verdict.problem is None
    if args.json:
        print(dump({"ok": ok, **{name: getattr(verdict, name) for name in Verdict.__struct_fields__}}))
    elif ok:
        print(f"the audit log is whole: {verdict.records} records, {verdict.first} to {verdict.last}")
        print(f"head {shown(verdict.head)}")
    else:
        print(f"the audit log is BROKEN: {shown(verdict.problem)}", file=sys.stderr)
    return 0 if ok else BROKEN_STATUS
