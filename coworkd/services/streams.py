"""Streams: every one belongs to the link that opened it, and ends with it.

Rules
- A name is a link's own: what another link asks of it is answered as if there were none.
- A link has at most `STREAMS_PER_LINK`. A place is taken before whatever the stream leads to is touched, and is free again when the
  host closed the stream; one that ended by itself keeps its place until then, so that the host always knows what it has.
- A write waits for room at most `PATIENCE_S`, then answers with what was taken. Of one link at most `PATIENT_WRITES` wait at once,
  more are answered at once: others' calls find a place (C-5), however many peers do not read.
- The end of a link aborts its streams; nobody may take what was sent so far for the whole.

What a stream leads to is the opener's business: a `StreamEnd` (docs/protocol.md, section Streams). Encoding is the caller's.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidParams, LimitExceeded, NotFound, Unavailable
from coworkd.model.ports import LinkPort
from coworkd.model.stream import STREAMS_PER_LINK, WINDOW_LIMIT_BYTES, StreamEnd, StreamEnding
from coworkd.services.streams_flow import EncodeData, Flow

PATIENCE_S = 1.0
PATIENT_WRITES = 128
Ended = Callable[[StreamEnding], Awaitable[None]]
"""Called once, in a task of `Streams.serve`, when a stream is no more."""

_log = logging.getLogger("coworkd.stream")


class _Streams:
    """The streams of one link."""

    def __init__(self, link: LinkPort) -> None:
        self.link = link
        self.flows: dict[str, Flow] = {}
        self.places = 0
        self.waiting = 0
        self.gone = False


class Place:
    """Room for one stream of a link: `open` it, or leave the `with` to give the room back."""

    def __init__(self, owner: Streams, streams: _Streams, name: str) -> None:
        self.name = name
        self._owner = owner
        self._streams = streams
        self._open = False
        streams.places += 1

    def open(self, end: StreamEnd, *, window: int | None, ended: Ended) -> Flow:
        """The stream, attached to its link: nothing may be awaited between this and the answer that names it.

        It owns `end` from here on, also where this raises: `Unavailable`, the link is gone.
        """
        if self._streams.gone:
            end.close(abort=True)
            raise Unavailable("the link that asked for the stream is gone")
        self._open = True
        return self._owner._begin(self, self._streams, end, window=window, ended=ended)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            self._streams.places -= 1


class Streams:
    """All streams of this guest. `serve` owns their tasks."""

    def __init__(
        self, *, encode: EncodeData, limit: int = STREAMS_PER_LINK, patient_writes: int = PATIENT_WRITES
    ) -> None:
        self._encode = encode
        self._limit = limit
        self._patient_writes = patient_writes
        self._links: dict[LinkPort, _Streams] = {}
        self._numbers = itertools.count(1)
        self._nursery: trio.Nursery | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the tasks of streams. Never returns."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    @property
    def count(self) -> int:
        return sum(len(streams.flows) for streams in self._links.values())

    def reserve(self, link: LinkPort, /, *, window: int | None = None) -> Place:
        """A place for one more stream of `link`, in a `with`. Raises `LimitExceeded`, `InvalidParams` for its window."""
        check_window(window)
        streams = self._links.get(link)
        if streams is None:
            streams = self._links[link] = _Streams(link)
            link.on_close(lambda: self._lose_link(link))
        if streams.places >= self._limit:
            raise LimitExceeded(
                f"this link has {self._limit} streams; close some with stream.close", limit=self._limit
            )  # fmt: skip
        return Place(self, streams, f"s{next(self._numbers)}")

    # -- verbs --------------------------------------------------------------------------------------------------

    async def write(self, params: calls.StreamWrite, link: LinkPort) -> calls.StreamOffset:
        """Raises `NotFound`, `OutOfRange` (an offset behind the one wanted), `InvalidState` (closed by either side)."""
        if params.offset < 0:
            raise InvalidParams(f"an offset is not negative, as {params.offset} is", key="offset")
        streams, flow = self._find(params.stream, link)
        if not flow.write_now(params.offset, params.data) and streams.waiting < self._patient_writes:
            streams.waiting += 1
            try:
                with trio.move_on_after(PATIENCE_S):
                    await flow.write(params.offset, params.data)
            finally:
                streams.waiting -= 1
        return calls.StreamOffset(offset=flow.wanted)

    async def close_write(self, params: calls.StreamCloseWrite, link: LinkPort) -> calls.Empty:
        """Raises `NotFound`, `OutOfRange` unless exactly `offset` bytes were taken. Idempotent."""
        self._find(params.stream, link)[1].close_write(params.offset)
        return calls.Empty()

    async def ack(self, params: calls.StreamAck, link: LinkPort) -> calls.Empty:
        """Raises `NotFound`, `OutOfRange` for bytes that were never sent."""
        self._find(params.stream, link)[1].ack(params.offset)
        return calls.Empty()

    async def close(self, params: calls.StreamClose, link: LinkPort) -> calls.Empty:
        """End it, and free its name. Raises `NotFound`."""
        streams, flow = self._find(params.stream, link)
        del streams.flows[params.stream]
        streams.places -= 1
        flow.close()
        return calls.Empty()

    # -- inside -------------------------------------------------------------------------------------------------

    def _find(self, name: str, link: LinkPort) -> tuple[_Streams, Flow]:
        streams = self._links.get(link)
        flow = streams.flows.get(name) if streams is not None else None
        if streams is None or flow is None:
            raise NotFound(
                f"this link has no stream {name[:64]!r}: it was closed, or is another link's", stream=name[:64]
            )
        return streams, flow

    def _begin(
        self, place: Place, streams: _Streams, end: StreamEnd, *, window: int | None, ended: Ended
    ) -> Flow:  # fmt: skip
        nursery = self._nursery
        if nursery is None:
            end.close(abort=True)
            raise Unavailable("coworkd is starting or stopping; open the stream again later")
        flow = Flow(place.name, end, streams.link, encode=self._encode, window=window)
        flow.on_end(partial(self._ended, place.name, ended))
        streams.flows[place.name] = flow
        nursery.start_soon(flow.watch)
        streams.link.attach(flow)
        return flow

    def _ended(self, name: str, ended: Ended, ending: StreamEnding) -> None:
        if self._nursery is None:
            _log.warning("stream %s ended while coworkd was stopping; its end is not recorded", name)
            return
        self._nursery.start_soon(self._tell, name, ended, ending)

    async def _tell(self, name: str, ended: Ended, ending: StreamEnding) -> None:
        try:
            # What is recorded of the end must be, also when coworkd is stopping.
            with trio.CancelScope(shield=True):
                await ended(ending)
        except CoworkError as error:
            _log.error("the end of stream %s was not recorded: %s", name, error.message)

    def _lose_link(self, link: LinkPort) -> None:
        streams = self._links.pop(link)
        streams.gone = True
        for flow in streams.flows.values():
            flow.lose(Unavailable(f"the link of stream {flow.name} ended"))


def check_window(window: int | None) -> None:
    """Raise `InvalidParams` unless it is None or a number of bytes that can be meant."""
    if window is not None and not 0 < window <= WINDOW_LIMIT_BYTES:
        raise InvalidParams(f"a window has 1 to {WINDOW_LIMIT_BYTES} bytes, not {window}", key="window")
