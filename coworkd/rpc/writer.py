"""The one writer of a link: control overtakes data, data takes turns.

Rules
- Control frames (answers, exits) go first, in order. Then the sources that may have something give frames of at most 64 KiB of data, as
  their `turns` come, until `GATHER_BYTES` are together; that is one gathering send.
- Only the transport slows data: a source is asked again when everything gathered before was taken by the kernel. One that had nothing
  is asked again when it wakes.
- Control is bounded: more than `CONTROL_FRAMES` or `CONTROL_BYTES` waiting means that the peer does not read, and the
  link is closed (`overflowed` is called, once). Answers can wait for room first: `wait_room`.
- A source that raises is detached and logged; the others go on.
- `Frames.detached` is called exactly once for every source that was attached, at `detach`, at its error, or at `close`.
  Buffers it gave before are still referenced until they were sent.

Not here: encoding, sockets.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import trio

from coworkd.model.ports import Frames
from coworkd.rpc.transport import MAX_BUFFERS, Buffer, Transport
from coworkd.rpc.turns import FRAME_BYTES, GATHER_BYTES, Turns

CONTROL_FRAMES = 8192
CONTROL_BYTES = 64 * 1024 * 1024
ROOM_BYTES = 4 * 1024 * 1024
ROOM_FRAMES = 1024

_log = logging.getLogger("coworkd.link")


class Writer:
    """Owned by a `Link`, which runs it in one task. All methods but `run`, `wait_room` and `drain` are synchronous."""

    def __init__(self, transport: Transport, *, name: str, overflowed: Callable[[], None]) -> None:
        self._transport = transport
        self._name = name
        self._overflowed = overflowed
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._turns = Turns()
        self._awake = trio.Event()
        self._room = trio.Event()
        self._idle = trio.Event()
        self._sending = False
        self._closed = False

    def put(self, frame: bytes) -> None:
        """Queue a control frame. On a closed writer it is dropped: the link is gone."""
        if self._closed:
            return
        if len(self._control) >= CONTROL_FRAMES or self._control_bytes + len(frame) > CONTROL_BYTES:
            _log.warning(
                "link %s does not read: %d control frames wait, closing it", self._name, len(self._control)
            )  # fmt: skip
            self.close()
            self._overflowed()
            return
        if not self._sending and not self._control:
            # Most answers go out at once: a turn of the loop for the writing task would cost more than the call.
            frame = frame[self._transport.send_nowait(frame) :]
            if not frame:
                return
        self._control.append(frame)
        self._control_bytes += len(frame)
        self._awake.set()

    @property
    def has_room(self) -> bool:
        """Whether the peer keeps up with its answers."""
        return self._control_bytes < ROOM_BYTES and len(self._control) < ROOM_FRAMES

    async def wait_room(self) -> None:
        """Return when `has_room`, or when the writer is closed. No checkpoint if that is so already."""
        while not self.has_room and not self._closed:
            await self._room.wait()

    async def drain(self) -> None:
        """Return when every control frame queued so far was taken by the transport, or the writer is closed."""
        while (self._control or self._sending) and not self._closed:
            await self._idle.wait()

    def attach(self, source: Frames) -> None:
        """Pull from `source` from now on. On a closed writer it is told at once that it is detached."""
        if self._closed:
            source.detached()
            return
        self._turns.attach(source)
        self._awake.set()

    def detach(self, source: Frames) -> None:
        """Pull no more; one that is not attached is passed over."""
        if not self._turns.detach(source):
            return
        try:
            source.detached()
        except Exception:  # noqa: BLE001 - the rest of the tear-down must go on
            _log.exception("a source of link %s failed while it was detached", self._name)

    def wake(self, source: Frames) -> None:
        """A source has something again; one that is not attached is passed over."""
        self._turns.wake(source)
        self._awake.set()

    async def run(self) -> None:
        """Send until `close` or cancelled. Raises the transport's errors."""
        while not self._closed:
            self._awake = trio.Event()
            buffers = self._gather()
            if buffers:
                self._sending = True
                try:
                    await self._transport.send(buffers)
                finally:
                    self._sending = False
                self._awake.set()
                continue
            self._signal()
            await self._awake.wait()

    def close(self) -> None:
        """Drop what waits, detach every source, let waiters go. Idempotent."""
        self._closed = True
        self._control.clear()
        self._control_bytes = 0
        self._signal()
        self._awake.set()
        for source in self._turns:
            self.detach(source)

    def _signal(self) -> None:
        self._idle.set()
        self._idle = trio.Event()
        if self.has_room:
            self._room.set()
            self._room = trio.Event()

    def _gather(self) -> list[Buffer]:
        buffers: list[Buffer] = []
        total = 0
        while self._control and total < GATHER_BYTES and len(buffers) < MAX_BUFFERS:
            frame = self._control.popleft()
            buffers.append(frame)
            total += len(frame)
        self._control_bytes -= total
        if total and self.has_room:
            self._room.set()
            self._room = trio.Event()
        half_bytes, half_buffers = (total + GATHER_BYTES) // 2, (len(buffers) + MAX_BUFFERS) // 2
        while total < GATHER_BYTES and len(buffers) < MAX_BUFFERS:
            turn = self._turns.next(
                GATHER_BYTES - total, first_half=total < half_bytes and len(buffers) < half_buffers
            )  # fmt: skip
            if turn is None:
                break
            total += self._take_turn(*turn, buffers)
        return buffers

    def _take_turn(self, source: Frames, limit_bytes: int, buffers: list[Buffer]) -> int:
        """Add frames of `source` to `buffers` until they are `limit_bytes`, or it has no more; returns how many bytes those are."""
        given = 0
        while given < limit_bytes and len(buffers) < MAX_BUFFERS:
            frame = self._next_frame(source)
            if not frame:
                return given
            buffers += frame
            given += sum(map(len, frame))
        self._turns.again(source)
        return given

    def _next_frame(self, source: Frames) -> list[Buffer] | None:
        try:
            return source.next_frame(FRAME_BYTES)
        except Exception:  # noqa: BLE001 - one bad source must not end the others' link
            _log.exception("a source of link %s failed; it is detached, the link goes on", self._name)
            self.detach(source)
            return None
