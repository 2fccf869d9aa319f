"""Streams: bytes both ways between one link and something in the guest (a port of a session, later a file).

What a stream leads to is a `StreamEnd`; the stream itself counts offsets, keeps to the window and belongs to its link.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from coworkd.model.errors import CoworkError

STREAMS_PER_LINK = 256
WINDOW_LIMIT_BYTES = 16 * 1024 * 1024
"""The largest window a host may ask for."""


class StreamEnd(Protocol):
    """The guest's side of a stream. Whoever is handed one closes it. Nothing is kept in it: the kernel is the buffer."""

    def read_nowait(self, limit_bytes: int, /) -> bytes | None:
        """What has come, at most `limit_bytes`; empty at the end; None where there is nothing now.

        Raises `OSError` where the other side was lost, and a `CoworkError` where more is known of it.
        """

    async def wait_readable(self) -> None:
        """Return when `read_nowait` has something, the end included. Raises `trio.ClosedResourceError` after `close`."""

    def write_nowait(self, data: memoryview, /) -> int:
        """How much of `data` was taken, 0 where there is no room now. Raises `OSError`."""

    async def wait_writable(self) -> None:
        """Return when there may be room. Raises `trio.ClosedResourceError` after `close`."""

    def close_write(self) -> None:
        """Nothing more will be written: the other side reads an end behind what was taken. Raises `OSError`."""

    def close(self, *, abort: bool = False) -> None:
        """Close; idempotent. `abort`: the other side must not take what it has for the whole."""


class StreamEnding(Struct, frozen=True, kw_only=True):
    """How a stream ended. `error` None: the host closed it."""

    sent_bytes: int
    """From the host into the guest."""
    received_bytes: int
    """From the guest to the host."""
    took_s: float
    error: CoworkError | None = None
