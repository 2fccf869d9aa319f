"""Export: the audit log's own bytes, piece by piece, so that a copy elsewhere is the log and proves itself like it.

Rules: nothing is remembered between pieces, the asker says where to read on. A piece ends with a whole line. A file that was dropped
meanwhile is `NotFound`: what is kept begins later, and `oldest` says where.

Blocking; for worker threads.
"""

from __future__ import annotations

from coworkd.auditlog.chain import LINE_LIMIT_BYTES
from coworkd.model.calls_audit import AuditExport, AuditFile, AuditPiece
from coworkd.model.errors import InvalidParams, NotFound, OutOfRange
from coworkd.services.audit_snapshot import Snapshot, read_forwards

PIECE_BYTES = 1024 * 1024 + LINE_LIMIT_BYTES
"""At most; below the 4 MiB a guest may send in one message, and more than a line can have."""


def read_piece(snapshot: Snapshot, wanted: AuditExport) -> AuditPiece:
    """What follows the place that is wanted, at most `PIECE_BYTES`. Raises `InvalidParams`, `NotFound`, `OutOfRange`, `OSError`."""
    if wanted.offset < 0 or (wanted.file is None and wanted.offset):
        raise InvalidParams("an offset is not negative, and wants the file it is in", key="offset")
    names = [name for name, _, _ in snapshot.files]
    if not names:
        return _piece(snapshot, None, 0, b"", None)
    file = names[0] if wanted.file is None else wanted.file
    if file not in names:
        raise NotFound(
            f"the audit log has no file {file!r}, or it was dropped: what is kept begins with {names[0]}",
            oldest=names[0],
        )
    place = names.index(file)
    _, fd, size = snapshot.files[place]
    if wanted.offset > size:
        raise OutOfRange(f"file {file} of the audit log has {size} bytes, so none at {wanted.offset}", size=size)
    data = _whole_lines(
        b"".join(read_forwards(fd, min(size, wanted.offset + PIECE_BYTES), wanted.offset)), size, wanted
    )
    if wanted.offset + len(data) < size:
        return _piece(snapshot, file, wanted.offset, data, file)
    return _piece(snapshot, file, wanted.offset, data, names[place + 1] if place + 1 < len(names) else None)


def _whole_lines(data: bytes, size: int, wanted: AuditExport) -> bytes:
    """All of it where it is the end of the file, torn or not: a copy shows what is there."""
    end = data.rfind(b"\n") + 1
    return data if wanted.offset + len(data) >= size or not end else data[:end]


def _piece(snapshot: Snapshot, file: str | None, offset: int, data: bytes, next_file: str | None) -> AuditPiece:
    return AuditPiece(
        file=file,
        offset=offset,
        data=data,
        next_file=next_file,
        next_offset=offset + len(data) if next_file == file else 0,
        files=tuple(AuditFile(name=name, size=size) for name, _, size in snapshot.files),
        head_seq=snapshot.head.seq,
        head=snapshot.head.hash,
    )
