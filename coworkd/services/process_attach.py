"""Links and processes: making readers, moving and removing them.

Rules
- A link has at most one reader of a process; attaching again moves it.
- The place of a reader that acknowledges is held for `HOLD_S` when its link breaks: until then what it has not had is kept as if it
  still read. An acknowledging reader that begins in between takes the place over. So a host that comes back soon misses nothing.
- A reader counts as a reader, and holds back output that would be dropped, from when it is made, attached or not.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from coworkd.model import calls
from coworkd.model.errors import InvalidParams, InvalidState, OutOfRange
from coworkd.model.ports import LinkPort
from coworkd.model.process import StreamName
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_reader import EncodeNotification, EncodeOutput, ProcessReader
from coworkd.services.spools import Spool

HOLD_S = 30.0


class Attacher:
    """Knows how to encode, which is the caller's to say."""

    def __init__(
        self, encode_output: EncodeOutput, encode_notification: EncodeNotification, later: Callable[..., None]
    ) -> None:
        """`later` starts a task."""
        self._encode_output = encode_output
        self._encode_notification = encode_notification
        self._later = later
        self._held: dict[LiveProcess, list[ProcessReader]] = {}
        """Those whose link broke and whose place is kept for a while."""

    def attach(self, process: LiveProcess, params: calls.ProcessAttach, link: LinkPort) -> calls.ProcessAttached:
        """Attach at the offsets given, elsewhere at the oldest byte kept. Raises `OutOfRange` with `stream`, `first` and `end`,
        and leaves what was attached before.
        """
        if process.one_shot:
            raise InvalidState(f"process {process.id} is a process.run, which answers its caller", process=process.id)
        if not process.streams:
            raise InvalidState(f"process {process.id} is still being started; try again", process=process.id)
        named: dict[StreamName, int | None] = {"stdout": params.stdout, "stderr": params.stderr, "tty": params.tty}
        offsets = {name: at for name, at in named.items() if at is not None}
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
        given = offsets or {}
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
        if acknowledged:
            begun = {name: offset for name, (_, offset) in streams.items()}
            for held in [each for each in self._held.get(process, ()) if each.holds(begun)][:1]:
                self._let_go(process, held)
        return reader

    def _gone(self, process: LiveProcess, reader: ProcessReader) -> None:
        process.reader_gone(reader)
        if reader.held:
            self._held.setdefault(process, []).append(reader)
            self._later(self._hold, process, reader)

    async def _hold(self, process: LiveProcess, reader: ProcessReader) -> None:
        await trio.sleep(HOLD_S)
        self._let_go(process, reader)

    def _let_go(self, process: LiveProcess, reader: ProcessReader) -> None:
        held = self._held.get(process, [])
        if reader in held:
            held.remove(reader)
            reader.release()
        if not held:
            self._held.pop(process, None)


def _check_kept(process: str, stream: StreamName, spool: Spool, offset: int) -> None:
    if not spool.first <= offset <= spool.end:
        raise OutOfRange(
            f"{stream} of process {process} keeps bytes {spool.first} to {spool.end}; {offset} is none of them",
            process=process,
            stream=stream,
            first=spool.first,
            end=spool.end,
        )
