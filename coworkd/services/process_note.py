"""The note of a process: what coworkd wants to know of it after a restart, kept by the launcher unread (`launch.Spawn.note`).

Rules
- Moments are CLOCK_MONOTONIC, which all programs of one boot share, and no clock that is set moves.
- A note that cannot be read, of an older coworkd or a newer one, loses what it says and never its process.

Pure. Not here: what is in the launcher's own record (session, argv, pids, descriptors, how it ended).
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from coworkd.model.process import ExitReason, OnFull


class ProcessNote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything has a default: a note says what is not as usual."""

    on_full: OnFull | None = None
    spool_bytes: int | None = None
    """What is kept of each stream."""
    timeout_s: float | None = None
    times_out_at: float | None = None
    ended_by: ExitReason | None = None
    """What began to end it first."""
    kill_at: float | None = None
    """It was told to end, and is killed then."""
    recorded: bool = False
    """Its end is in the audit log."""
    readers: int = 0
    """How many hosts that acknowledge read it, or may come back to do so, where a full spool waits for them alone."""


def encode_note(note: ProcessNote) -> bytes:
    return msgspec.msgpack.encode(note)


def decode_note(data: bytes) -> ProcessNote:
    """Raises `ValueError` for what is no note of ours; no bytes are a note that says nothing."""
    return msgspec.msgpack.decode(data, type=ProcessNote) if data else ProcessNote()
