"""The shapes of `audit.query` and `audit.export`; `audit.tail` and `audit.verify` stand in `calls`."""

from __future__ import annotations

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Params


class AuditQuery(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The newest records that fit all that is given."""

    limit: int = 100
    session: str | None = None
    process: str | None = None
    kinds: tuple[str, ...] = ()
    """Each a kind, or the beginning of some that ends with `.`: `egress.`."""
    refused: bool = False
    """Only decisions that something was not allowed."""
    since: float | None = None
    until: float | None = None
    """`since <= at < until`, epoch seconds."""


class AuditExport(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where to read on: None and 0 begin with the oldest record that is kept."""

    file: str | None = None
    offset: int = 0


class AuditFile(Struct, frozen=True, kw_only=True):
    """One file of the log and its durable bytes; its name says the `seq` of its first record."""

    name: str
    size: int


class AuditPiece(Answer, frozen=True, kw_only=True):
    """`data` as it lies in `file` from `offset` on. Files with their bytes, put together, are the log and verify like it."""

    file: str | None
    """None: there is no record."""
    offset: int
    data: bytes
    next_file: str | None
    """Where to read on; None: this was the end of this moment, and `file` with `offset` plus what came reads on later."""
    next_offset: int
    files: tuple[AuditFile, ...]
    """All that are kept, oldest first."""
    head_seq: int
    head: str
