"""Export in pieces: a copy put together from them is the log."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from coworkd.auditlog import RotationLimits, verify
from coworkd.model.calls_audit import AuditExport, AuditPiece
from coworkd.model.errors import InvalidParams, NotFound, OutOfRange
from coworkd.services import audit_export
from coworkd.services.audit import AuditLog

SMALL = RotationLimits(file_bytes=2000, total_bytes=8000, reserve_bytes=4096)


async def fill(log: AuditLog, count: int) -> None:
    for number in range(count):
        await log.record("session.create", {"session": f"s{number}", "uid": 1001 + number})


async def read_all(log: AuditLog) -> tuple[dict[str, bytes], AuditPiece]:
    found: dict[str, bytes] = {}
    piece = await log.export(AuditExport())
    while piece.file is not None:
        assert piece.offset == len(found.get(piece.file, b""))
        found[piece.file] = found.get(piece.file, b"") + piece.data
        if piece.next_file is None:
            break
        piece = await log.export(AuditExport(file=piece.next_file, offset=piece.next_offset))
    return found, piece


def test_pieces_put_together_are_the_files_and_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_export, "PIECE_BYTES", 700)

    async def main() -> None:
        log = AuditLog.open(tmp_path, boot_id="boot", version="0", limits=SMALL)
        await fill(log, 25)
        found, last = await read_all(log)
        assert found == {path.name: path.read_bytes() for path in sorted(tmp_path.glob("audit-*"))}
        assert len(found) > 1
        verdict = verify((name, [data]) for name, data in found.items())
        assert (verdict.problem, verdict.head) == (None, last.head)
        log.close()

    trio.run(main)


def test_export_goes_on_where_it_ended_with_what_came_since(tmp_path: Path) -> None:
    async def main() -> None:
        log = AuditLog.open(tmp_path, boot_id="boot", version="0")
        await fill(log, 2)
        first = await log.export(AuditExport())
        assert first.next_file is None
        await fill(log, 1)
        more = await log.export(AuditExport(file=first.file, offset=len(first.data)))
        assert more.data.count(b"\n") == 1
        assert first.data + more.data == next(tmp_path.glob("audit-*")).read_bytes()
        log.close()

    trio.run(main)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (AuditExport(offset=3), InvalidParams),
        (AuditExport(offset=-1), InvalidParams),
        (AuditExport(file="../etc/shadow"), NotFound),
        (AuditExport(file="audit-00000000000000000001.jsonl", offset=1 << 40), OutOfRange),
    ],
)
def test_places_that_are_none_are_refused(tmp_path: Path, wanted: AuditExport, error: type[Exception]) -> None:
    async def main() -> None:
        log = AuditLog.open(tmp_path, boot_id="boot", version="0")
        with pytest.raises(error):
            await log.export(wanted)
        log.close()

    trio.run(main)


def test_a_file_that_was_dropped_is_not_found_and_the_oldest_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        log = AuditLog.open(tmp_path, boot_id="boot", version="0", limits=SMALL)
        await fill(log, 60)
        with pytest.raises(NotFound) as refused:
            await log.export(AuditExport(file="audit-00000000000000000001.jsonl"))
        assert refused.value.details["oldest"] == (await log.export(AuditExport())).file
        log.close()

    trio.run(main)
