"""What has come for one attached process and was not taken yet: offsets checked, bounded, without I/O.

Rules
- Frames of one stream are handed out in order, each byte once. A frame that starts behind the position wanted is a gap:
  the frames before it are handed out, then `take` raises `OutOfRange` once, then the frames behind the gap follow.
- Bytes that were had already (a re-attach from an earlier offset) are cut off, never handed out twice.
- Past `BOUND_BYTES` the inbox is `parked`: the client detaches from the process, and attaches again from `wanted` when
  everything was taken, so that a process nobody reads cannot fill the host, nor stop the link for others. What was on its
  way is still taken, since the guest may have let it go: at most as much again, past that it is dropped and shows as a gap.
- It is `finished` when the exit is known and every stream has ended, or the exit says that its output is not complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from coworkd.model.errors import InvalidState, OutOfRange
from coworkd.model.process import ExitRecord, StreamName

BOUND_BYTES = 16 * 1024 * 1024
ACK_BYTES = 32 * 1024
"""So much comes until it is acknowledged, on a link that acknowledges: half of what the smallest spool keeps, so that no command waits
for an acknowledgement that is not due."""


class Output(NamedTuple):
    """One piece of output: `data` begins at `offset` of `stream`. `eof` says that nothing follows on that stream."""

    stream: StreamName
    offset: int
    data: bytes
    eof: bool


class _Gap(NamedTuple):
    stream: StreamName
    expected: int
    got: int


class Inbox:
    """The receiving end of one process. `wanted` maps each attached stream that has not ended to its next offset."""

    def __init__(self, process: str, wanted: Mapping[str, int], *, bound_bytes: int = BOUND_BYTES) -> None:
        self.process = process
        self.wanted: dict[str, int] = dict(wanted)
        self._ended: dict[str, int] = {}
        self.exit: ExitRecord | None = None
        self.parked = False
        self._full = False
        self._dropped = False
        self._unacknowledged = 0
        self._bound_bytes = bound_bytes
        self._queue: deque[Output | _Gap] = deque()
        self.queued_bytes = 0

    def feed_output(self, stream: str, offset: int, data: bytes, eof: bool) -> bool:
        """Take one frame in. True when this frame made the inbox `parked`: the caller must detach."""
        wanted = self.wanted.get(stream)
        if wanted is None or self._full:
            return False
        total_bytes = self.queued_bytes + len(data)
        if self.queued_bytes and total_bytes > 2 * self._bound_bytes:
            self._full = True
            return self.park()
        name = cast(StreamName, stream)
        if offset > wanted:
            self._queue.append(_Gap(name, wanted, offset))
        elif offset < wanted:
            data = data[wanted - offset :]
            offset = wanted
        if data or eof:
            self._queue.append(Output(name, offset, data, eof))
        self.queued_bytes += len(data)
        self._unacknowledged += len(data)
        if eof:
            del self.wanted[stream]
            self._ended[stream] = offset + len(data)
        else:
            self.wanted[stream] = offset + len(data)
        return self.park() if self.queued_bytes > self._bound_bytes else False

    def positions(self) -> dict[str, int]:
        """Stream → where to attach again: the next offset wanted, or its end."""
        return {**self.wanted, **self._ended}

    def due(self) -> dict[str, int]:
        """What to acknowledge now, counted as acknowledged from here on; empty where nothing is due."""
        if self._unacknowledged < ACK_BYTES:
            return {}
        self._unacknowledged = 0
        return self.positions()

    def park(self) -> bool:
        """Nothing counts until `resume`; true where it did."""
        parked, self.parked = self.parked, True
        return not parked

    def feed_exit(self, record: ExitRecord) -> None:
        """The process ended; output that was counted may still be on its way."""
        self.exit = record

    def resume(self) -> None:
        """The link is attached again from `wanted`: frames count once more."""
        self.parked = False
        self._full = False

    def drop(self) -> None:
        """Nothing comes any more: what waits can be taken, then whoever wants what is missing is told."""
        self._dropped = True

    def take(self) -> Output | None:
        """The next piece, or None when none waits. Raises `OutOfRange` where bytes are missing before the next one, `InvalidState`
        where the rest was dropped here.
        """
        if not self._queue:
            if self._dropped and not self.finished:
                raise InvalidState(f"process {self.process} was detached from here", process=self.process)
            return None
        item = self._queue.popleft()
        if isinstance(item, Output):
            self.queued_bytes -= len(item.data)
            return item
        raise OutOfRange(
            f"{item.got - item.expected} bytes of {item.stream} of process {self.process} are gone: wanted offset "
            f"{item.expected}, the oldest kept is {item.got}; read on to go on behind the gap, and start with "
            'on_full="block" or read faster to lose nothing',
            process=self.process,
            stream=item.stream,
            expected=item.expected,
            offset=item.got,
        )

    @property
    def waiting(self) -> bool:
        """`take` has something, or raises."""
        return bool(self._queue) or self._dropped

    @property
    def finished(self) -> bool:
        """Everything was taken and nothing more will come."""
        if self.exit is None or self._queue or self.parked:
            return False
        return self.exit.output != "complete" or not self._missing(self.exit)

    def _missing(self, record: ExitRecord) -> bool:
        return any(position < record.bytes.get(stream, 0) for stream, position in self.wanted.items())


def without_refused(offsets: Mapping[str, int], error: OutOfRange) -> dict[str, int]:
    """The offsets to attach with after one of them was refused: a stream not named begins at the oldest byte kept.

    Raises `error` where it names none of them.
    """
    stream = error.details.get("stream")
    if stream not in offsets:
        raise error
    return {name: offset for name, offset in offsets.items() if name != stream}


def read_output(params: Mapping[str, Any]) -> tuple[str, str, int, bytes, bool]:
    """The fields of a `process.output` notification: process, stream, offset, data, eof. Raises `KeyError`, `TypeError`."""
    data = params.get("data", b"")
    if not isinstance(data, bytes):
        raise TypeError("process.output: data must be bin")
    return params["process"], params["stream"], int(params["offset"]), data, params.get("eof") is True
