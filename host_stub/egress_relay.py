"""Bytes between a guest's connection and its server, both ways, until both have ended or nothing moves any more.

Each way holds one piece of at most `PIECE_BYTES`: whoever does not read slows the other down. An end is passed on as an end, so the other
direction goes on. The caller closes both streams.
"""

from __future__ import annotations

import trio

PIECE_BYTES = 64 * 1024


class Relay:
    """Two joined streams. `up_bytes` went to the server, `down_bytes` to the guest; `ended` says how it ended."""

    def __init__(self, guest: trio.abc.HalfCloseableStream, server: trio.abc.HalfCloseableStream) -> None:
        self.up_bytes = 0
        self.down_bytes = 0
        self.ended = "both ends closed"
        self._guest = guest
        self._server = server

    async def run(self, *, idle_s: float) -> None:
        """Until the end; never raises for what either side does."""
        with trio.CancelScope(deadline=trio.current_time() + idle_s) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, self._guest, self._server, True, scope, idle_s)
                nursery.start_soon(self._carry, self._server, self._guest, False, scope, idle_s)
        if scope.cancelled_caught and self.ended == "both ends closed":
            self.ended = f"nothing moved for {idle_s:.0f} s"

    async def _carry(
        self,
        source: trio.abc.HalfCloseableStream,
        sink: trio.abc.HalfCloseableStream,
        up: bool,
        scope: trio.CancelScope,
        idle_s: float,
    ) -> None:
        try:
            while data := await source.receive_some(PIECE_BYTES):
                scope.deadline = trio.current_time() + idle_s
                await sink.send_all(data)
                scope.deadline = trio.current_time() + idle_s
                if up:
                    self.up_bytes += len(data)
                else:
                    self.down_bytes += len(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended = "a connection broke"
            scope.cancel()
