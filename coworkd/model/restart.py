"""What a coworkd found when it came up beside a launcher that another coworkd had before it."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Adoption(Struct, kw_only=True):
    """How many commands came over, and how they were."""

    running: int = 0
    ended: int = 0
    """They ended before they were taken over; how is known."""
    one_shots: int = 0
    """Nobody waits for them any more: they are ended, or have ended by themselves."""
    never_ran: int = 0
    unread_notes: int = 0
    lost: list[str] = msgspec.field(default_factory=list)
    """Processes that ran, and that neither the launcher nor the log tells the end of."""
    unsearched: bool = False
    """There may be more of them: the log is longer than what is read of it."""


class Restarted(Struct, frozen=True, kw_only=True):
    """Told in `hello` for as long as this coworkd runs, by the event `restarted`, and recorded as `daemon.recovered`."""

    at: float
    took_s: float
    """From its start until it served everything."""
    running: int
    """Commands that run on."""
    ended: int
    """Commands that ended meanwhile; how, and what they put out, is known."""
    one_shots: int
    """Of `process.run`, whose callers are gone: they are ended."""
    sessions: int
    """Those that are open."""
    approvals: int
    """Deletes that wait for an answer still."""
    lost: tuple[str, ...]
    """What is not as it was, in words; empty where nothing was lost."""
