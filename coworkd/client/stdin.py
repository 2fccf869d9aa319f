"""How stdin is offered: pieces well below the message limit, and how long to wait when nothing was taken. Pure.

The guest takes what has room and answers with the next offset wanted (docs/protocol.md P-11); it never waits for the command. So
whoever writes comes back later: soon at first, then less often.
"""

from __future__ import annotations

from coworkd.client.inbox import Inbox
from coworkd.model.errors import LimitExceeded

UNREAD_LIMIT_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
RETRY_FIRST_S = 0.001
RETRY_LAST_S = 0.05


def chunk_at(data: bytes, position: int) -> bytes:
    """The next piece to offer; all of `data` where it is small, without a copy."""
    if position == 0 and len(data) <= CHUNK_BYTES:
        return data
    return data[position : position + CHUNK_BYTES]


def next_pause_s(pause_s: float) -> float:
    """The pause after one that was in vain."""
    return min(pause_s * 2, RETRY_LAST_S)


def check_unread(inbox: Inbox | None, position: int) -> None:
    """Raise `LimitExceeded` where the command took nothing while much of its output waits to be read here."""
    if inbox is not None and (inbox.parked or inbox.queued_bytes > UNREAD_LIMIT_BYTES):
        raise LimitExceeded(
            f"process {inbox.process} takes no input while its output is not read: read it in another thread, or use "
            "communicate()",
            stage="unread_output",
            position=position,
        )
