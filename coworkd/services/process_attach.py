"""Links and processes: making readers, moving and removing them.

Rules
- A link has at most one reader of a process; attaching again moves it.
- The place of a reader that acknowledges is held for `HOLD_S` when its link breaks: until then what it has not had is kept as if it
  still read. An acknowledging reader that begins in between takes the place over. So a host that comes back soon misses nothing.
- How many there are is noted with the launcher where a full spool waits for them alone: the coworkd after this one holds their places
  as if all their links had broken, which they have. At most `HELD_LIMIT` of a process are held, those that went last.
- A reader counts as a reader, and holds back output that would be dropped, from when it is made, attached or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from msgspec import structs

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, OutOfRange
from coworkd.model.ports import Frames, LinkPort
from coworkd.model.process import StreamName
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_note import ProcessNote
from coworkd.services.process_reader import EncodeNotification, EncodeOutput, ProcessReader
from coworkd.services.spools import Spool

HOLD_S = 30.0
HELD_LIMIT = 8

Note = Callable[[LiveProcess, ProcessNote], Awaitable[None]]
"""Has the launcher keep another note."""


class Attacher:
    """Knows how to encode, which is the caller's to say."""

    def __init__(
        self,
        encode_output: EncodeOutput,
        encode_notification: EncodeNotification,
        *,
        note: Note,
        later: Callable[..., None],
        unread: Callable[[LiveProcess], None],
    ) -> None:
        """`later` starts a task; `unread` is told of a process that nobody is waited for any more."""
        self._encode_output = encode_output
        self._encode_notification = encode_notification
        self._note = note
        self._later = later
        self._unread = unread
        self._held: dict[LiveProcess, dict[ProcessReader, trio.CancelScope]] = {}
        """Those whose link broke and whose place is kept for a while."""

    def attach(self, process: LiveProcess, params: calls.ProcessAttach, link: LinkPort) -> calls.ProcessAttached:
        """Attach at the offsets given, elsewhere at the oldest byte kept. Raises `OutOfRange` with `stream`, `first` and `end`,
        and leaves what was attached before.
        """
        if process.one_shot:
            raise InvalidState(f"process {process.id} is a process.run, which answers its caller", process=process.id)
        named: dict[StreamName, int | None] = {"stdout": params.stdout, "stderr": params.stderr, "tty": params.tty}
        # Of one that was lost unseen no stream is known: whoever comes for it, from wherever he has it, has its exit.
        offsets = {name: at for name, at in named.items() if at is not None and process.streams}
        reader = self.make_reader(process, link, offsets, acknowledged=params.acknowledge)
        for other in process.readers_of(link):
            if other is not reader:
                other.leave()
        link.attach(reader)
        streams = {str(name): calls.Range(first=spool.first, end=spool.end) for name, spool in process.streams.items()}
        return calls.ProcessAttached(streams=streams)

    def detach(self, process: LiveProcess, link: LinkPort) -> None:
        """Send no more of it to `link`; one that is not attached is passed over."""
        for reader in process.readers_of(link):
            reader.leave()

    def acknowledge(self, process: LiveProcess, params: calls.ProcessAck, link: LinkPort) -> None:
        """`link` has all before those offsets. One that is not attached is passed over: the exit may have crossed it."""
        named: dict[StreamName, int | None] = {"stdout": params.stdout, "stderr": params.stderr, "tty": params.tty}
        for reader in process.readers_of(link):
            reader.acknowledge({name: at for name, at in named.items() if at is not None})

    def make_reader(
        self,
        process: LiveProcess,
        link: LinkPort,
        offsets: dict[StreamName, int] | None = None,
        *,
        acknowledged: bool = False,
    ) -> ProcessReader:
        """A reader that its link does not pull from yet. Raises as `attach`."""
        reader = self._make(process, link, offsets or {}, acknowledged=acknowledged)
        if acknowledged:
            for held in [each for each in self._held.get(process, ()) if each.holds(reader.begun)][:1]:
                self._let_go(process, held)
        self._settle(process)
        return reader

    def awaited(self, process: LiveProcess) -> bool:
        """Whether somebody reads it, or may come back for it."""
        return bool(process.readers) or process in self._held or trio.current_time() < process.expected_until

    def await_readers(self, process: LiveProcess) -> None:
        """Hold the places of those that have read an adopted process, wherever they are; before anything more is taken from it."""
        process.expected_until = trio.current_time() + HOLD_S
        for _ in range(min(process.note.readers, HELD_LIMIT)):
            reader = self._make(process, _Away(), {}, acknowledged=True)
            reader.presume_sent()
            reader.detached()

    def _make(
        self, process: LiveProcess, link: LinkPort, given: Mapping[StreamName, int], *, acknowledged: bool
    ) -> ProcessReader:
        for name in given:
            if name not in process.streams:
                raise InvalidParams(f"process {process.id} has no stream {name}", key=name)
        streams = {name: (spool, given.get(name, spool.first)) for name, spool in process.streams.items()}
        for name, (spool, offset) in streams.items():
            _check_kept(process.id, name, spool, offset)
        reader = ProcessReader(
            process.id,
            link,
            streams,
            encode_output=self._encode_output,
            encode_notification=self._encode_notification,
            gone=lambda reader: self._gone(process, reader),
            acknowledged=acknowledged,
        )
        process.add_reader(reader)
        return reader

    def _gone(self, process: LiveProcess, reader: ProcessReader) -> None:
        process.reader_gone(reader)
        if reader.held:
            held = self._held.setdefault(process, {})
            held[reader] = trio.CancelScope()
            self._later(self._hold, process, reader, held[reader])
            for earlier in tuple(held)[:-HELD_LIMIT]:
                self._let_go(process, earlier)
        self._settle(process)
        if not self.awaited(process):
            self._unread(process)

    async def _hold(self, process: LiveProcess, reader: ProcessReader, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(HOLD_S)
        self._let_go(process, reader)

    def _let_go(self, process: LiveProcess, reader: ProcessReader) -> None:
        held = self._held.get(process, {})
        scope = held.pop(reader, None)
        if not held:
            self._held.pop(process, None)
        if scope is not None:
            scope.cancel()
            reader.release()
            self._settle(process)
            if not self.awaited(process):
                self._unread(process)

    def _settle(self, process: LiveProcess) -> None:
        if self._is_noted_otherwise(process):
            self._later(self._note_readers, process)

    async def _note_readers(self, process: LiveProcess) -> None:
        if self._is_noted_otherwise(process):
            await self._note(process, structs.replace(process.note, readers=self._count(process)))

    def _is_noted_otherwise(self, process: LiveProcess) -> bool:
        return process.running and process.note.on_full is None and process.note.readers != self._count(process)

    def _count(self, process: LiveProcess) -> int:
        return sum(reader.acknowledged for reader in process.readers) + len(self._held.get(process, ()))


class _Away:
    """The link of a host that is not there; a `ports.LinkPort`."""

    name = "away"

    def notify(self, method: str, params: Mapping[str, Any], /) -> None: ...

    def attach(self, source: Frames, /) -> None: ...

    def detach(self, source: Frames, /) -> None: ...

    def wake(self, source: Frames, /) -> None: ...

    def on_close(self, call: Callable[[], None], /) -> None: ...

    def finish(self, error: CoworkError, /) -> None: ...


def _check_kept(process: str, stream: StreamName, spool: Spool, offset: int) -> None:
    if not spool.first <= offset <= spool.end:
        raise OutOfRange(
            f"{stream} of process {process} keeps bytes {spool.first} to {spool.end}; {offset} is none of them",
            process=process,
            stream=stream,
            first=spool.first,
            end=spool.end,
        )
