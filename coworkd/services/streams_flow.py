"""One stream: offsets both ways, a window, two ends that close apart. Implements `ports.Frames`.

Rules
- Nothing is held here. Toward the host bytes leave the kernel when the link's writer takes its turn, and only as many as the window
  allows; toward the guest what was acknowledged is the kernel's.
- Every read of an end is told once: `eof` when the other side has ended, `eof` with an error when it was lost.
- Reading and writing end apart. When both have ended the descriptor is closed; the name is the host's until it closes it.
- `on_end` is called once: when the host closes it, or when both directions are over, or when it is lost.

Sources: shutdown(2), docs/protocol.md section Streams.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from coworkd.model.errors import CoworkError, InternalError, InvalidState, OutOfRange, Unavailable
from coworkd.model.ports import LinkPort
from coworkd.model.stream import StreamEnd, StreamEnding

Buffers = list[bytes | memoryview]
EncodeData = Callable[[str, int, bytes, bool, CoworkError | None], Buffers]
"""`(stream, offset, data, eof, error)` → the encoded `stream.data` notification."""

_log = logging.getLogger("coworkd.stream")


class Flow:
    """One stream of one link. `watch` runs in a task of its own."""

    def __init__(
        self, name: str, end: StreamEnd, link: LinkPort, *, encode: EncodeData, window: int | None
    ) -> None:  # fmt: skip
        self.name = name
        self.wanted = 0
        """The offset of the next byte to be written."""
        self.offset = 0
        """The offset of the next byte to be told."""
        self._end = end
        self._link = link
        self._encode = encode
        self._window = window
        self._allowed = window
        self._began = trio.current_time()
        self._turn = trio.Lock()
        self._ready = False
        self._hungry = trio.Event()
        self._hungry.set()
        self._watching = trio.CancelScope()
        self._over = False
        """Nothing more is told."""
        self._write_closed_by: str | None = None
        self._lost: CoworkError | None = None
        self._on_end: Callable[[StreamEnding], None] | None = None

    def on_end(self, call: Callable[[StreamEnding], None]) -> None:
        """Say who hears of the end; before the first verb."""
        self._on_end = call

    # -- toward the host ----------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Wake the link's writer whenever there is something to tell. Returns when there never will be again."""
        try:
            with self._watching:
                while True:
                    await self._hungry.wait()
                    self._hungry = trio.Event()
                    await self._end.wait_readable()
                    self._ready = True
                    self._link.wake(self)
        except trio.ClosedResourceError:
            return
        except Exception as error:  # noqa: BLE001 - one bad end must not end everybody's streams
            _log.exception("stream %s cannot be waited for", self.name)
            self.lose(InternalError(f"stream {self.name} cannot be read: {error}"))

    def next_frame(self, limit_bytes: int, /) -> Buffers | None:
        """See `ports.Frames`."""
        if self._over:
            return None
        if self._lost is not None:
            return self._tell_end(self._lost)
        room = limit_bytes if self._allowed is None else min(limit_bytes, self._allowed - self.offset)
        if not self._ready or room <= 0:
            return None
        try:
            data = self._end.read_nowait(room)
        except OSError as error:
            self.lose(_lost_by(self.name, error))
            return self._tell_end(self._lost)
        except CoworkError as error:
            self.lose(error)
            return self._tell_end(error)
        if data is None:
            self._ready = False
            self._hungry.set()
            return None
        if not data:
            return self._tell_end(None)
        offset = self.offset
        self.offset += len(data)
        return self._encode(self.name, offset, data, False, None)

    def detached(self) -> None:
        """The writer pulls no more: all was told, or the link is gone, or this failed."""
        if not self._over:
            self.lose(Unavailable(f"stream {self.name} is not read any more"))

    def ack(self, offset: int) -> None:
        """The host has taken all before `offset`. Raises `OutOfRange`."""
        if not 0 <= offset <= self.offset:
            raise OutOfRange(
                f"stream {self.name} has sent {self.offset} bytes, {offset} cannot have been taken",
                stream=self.name,
                offset=self.offset,
            )
        if self._window is not None and self._allowed is not None:
            self._allowed = max(self._allowed, offset + self._window)
            self._link.wake(self)

    def _tell_end(self, error: CoworkError | None) -> Buffers:
        self._over = True
        self._watching.cancel()  # the writing side may live on
        # Not now: the link is about to go on to the next of its sources.
        trio.lowlevel.current_trio_token().run_sync_soon(self._link.detach, self)
        frame = self._encode(self.name, self.offset, b"", True, error)
        self._settle()
        return frame

    # -- toward the guest ---------------------------------------------------------------------------------------

    def write_now(self, offset: int, data: bytes) -> bool:
        """Write what there is room for, unless another call is at it; whether all was taken. Raises as `write`."""
        if self._turn.locked():
            return False
        return self._write_some(offset, data)

    async def write(self, offset: int, data: bytes) -> None:
        """Write all of `data`, which begins at `offset`; `wanted` counts what was taken, also when cancelled.

        Raises `OutOfRange` for an offset behind the one wanted, `InvalidState` where this side or the other is closed.
        """
        async with self._turn:
            while not self._write_some(offset, data):
                try:
                    await self._end.wait_writable()
                except trio.ClosedResourceError:
                    self._refuse_closed()
                    raise

    def check_close(self, offset: int | None) -> None:
        """Raise `OutOfRange` unless exactly `offset` bytes were taken; None is always right."""
        if offset is not None and offset != self.wanted:
            raise OutOfRange(
                f"stream {self.name} has taken {self.wanted} bytes, not {offset}: write the rest first",
                stream=self.name,
                offset=self.wanted,
            )

    def close_write(self, offset: int | None) -> None:
        """The other side reads an end behind what was taken. Idempotent. Raises `OutOfRange`."""
        if self._write_closed_by is not None:
            return
        self.check_close(offset)
        self._write_closed_by = "the host"
        try:
            self._end.close_write()
        except OSError as error:
            _log.debug("stream %s: %s", self.name, error)  # it is closed already: reading tells how
        self._settle()

    def _write_some(self, offset: int, data: bytes) -> bool:
        self._refuse_closed()
        if offset > self.wanted:
            raise OutOfRange(
                f"stream {self.name} wants offset {self.wanted} next, not {offset}",
                stream=self.name,
                offset=self.wanted,
            )
        view = memoryview(data)[self.wanted - offset :]
        while view:
            try:
                taken = self._end.write_nowait(view)
            except OSError as error:
                self._write_closed_by = f"the other side ({os.strerror(error.errno or 0)})"
                self._settle()
                self._refuse_closed()
                raise
            if not taken:
                return False
            self.wanted += taken
            view = view[taken:]
        return True

    def _refuse_closed(self) -> None:
        if self._lost is not None:
            raise InvalidState(
                f"stream {self.name} is lost: {self._lost.message}", stream=self.name, offset=self.wanted
            )
        if self._write_closed_by is not None:
            raise InvalidState(
                f"stream {self.name} was closed for writing by {self._write_closed_by} after {self.wanted} bytes",
                stream=self.name,
                offset=self.wanted,
            )

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The host wants no more of it. Idempotent."""
        self._write_closed_by = self._write_closed_by or "the host"
        self._finish(None)
        self._over = True
        self._link.detach(self)

    def lose(self, error: CoworkError) -> None:
        """It cannot go on: the other side is aborted, and the host is told `error` where it still hears. Idempotent."""
        if self._lost is None and not self._ended:
            self._lost = error
            self._finish(error, abort=True)
            self._link.wake(self)

    @property
    def _ended(self) -> bool:
        return self._on_end is None

    def _settle(self) -> None:
        if self._over and self._write_closed_by is not None and not self._ended:
            self._finish(None)

    def _finish(self, error: CoworkError | None, *, abort: bool = False) -> None:
        call, self._on_end = self._on_end, None
        if call is None:
            return
        self._watching.cancel()
        self._end.close(abort=abort)
        call(
            StreamEnding(
                sent_bytes=self.wanted,
                received_bytes=self.offset,
                took_s=trio.current_time() - self._began,
                error=error,
            )
        )


def _lost_by(name: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"the other side of stream {name} broke off: {error.strerror or error}", stream=name, errno=error.errno
    )
