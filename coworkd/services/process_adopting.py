"""Taking over what the launcher kept while coworkd was away.

Rules
- The start of an adopted process was told by the coworkd before us, and is not told again.
- Its end goes on where that one left it: the reason it gave, the moment of a killing it began, the deadline of the command (its note).
- Who has read it may come back: its place is held (`process_attach`), from before anything more is taken from the command.
- Nobody waits for an adopted one-shot: it is ended, as one whose caller has gone.
- A note that cannot be read is told; the process is adopted all the same, without what it said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from coworkd.model.launch import Adopted
from coworkd.model.ports import LauncherPort, SpawnedFds
from coworkd.model.restart import Adoption
from coworkd.services.process_attach import Attacher
from coworkd.services.process_building import Builder
from coworkd.services.process_ending import Ender
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_note import ProcessNote, decode_note
from coworkd.services.process_request import ONE_SHOT_PREFIX
from coworkd.services.process_table import ProcessTable

_RECORDED_AT_ONCE = 256
"""The disk is waited for once for so many, not for each; more than a thousand and the log, whose queue has an end, would refuse them."""
_log = logging.getLogger("coworkd.process")


class Add(Protocol):
    """Puts a process into the table."""

    def __call__(
        self, id: str, session: str, argv: tuple[bytes, ...], *, one_shot: bool, adopted: bool
    ) -> LiveProcess: ...


class Adopter:
    """Makes processes of what was adopted."""

    def __init__(
        self,
        *,
        launcher: LauncherPort,
        table: ProcessTable,
        builder: Builder,
        ender: Ender,
        attacher: Attacher,
        add: Add,
        vanished: Callable[[LiveProcess], None],
        unsettled: Callable[[LiveProcess], None],
    ) -> None:
        """`vanished` ends one that nobody waits for; `unsettled` is told of one whose exec is not known yet."""
        self._launcher = launcher
        self._table = table
        self._builder = builder
        self._ender = ender
        self._attacher = attacher
        self._add = add
        self._vanished = vanished
        self._unsettled = unsettled
        self.adoption = Adoption()

    async def adopt_all(self) -> None:
        """Take over everything the launcher has told of since the last time, before anything is waited for."""
        lost: list[LiveProcess] = []
        taken: list[LiveProcess] = []
        for adopted, fds in self._launcher.adopted:
            if adopted.process in self._table:
                # Told as lost when the connection broke: what is told stays true.
                fds.close()
                lost.append(self._table.find(adopted.process))
            else:
                taken.append(self._take(adopted, fds))
        for process in lost:
            await self._ender.kill_lost(process)
        for at in range(0, len(taken), _RECORDED_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for process in taken[at : at + _RECORDED_AT_ONCE]:
                    nursery.start_soon(self._record, process)
        for process in taken:
            if process.one_shot or process.start_error is not None:
                self._vanished(process)
            elif not process.settled.is_set():
                self._unsettled(process)

    async def _record(self, process: LiveProcess) -> None:
        """With what tells who ran, should the next coworkd find no launcher that knows it (`process_lost`)."""
        await self._ender.record(
            "process.adopt",
            process,
            argv=process.argv,
            state=process.state,
            recorded=process.note.recorded,
            pid=process.pid,
            started_at=process.started_at,
        )

    def _take(self, adopted: Adopted, fds: SpawnedFds) -> LiveProcess:
        one_shot = adopted.process.startswith(ONE_SHOT_PREFIX)
        process = self._add(adopted.process, adopted.session, adopted.argv, one_shot=one_shot, adopted=True)
        process.note = self._read_note(adopted)
        process.ended_by = process.note.ended_by
        self._builder.adopt(process, adopted, fds, hold=self._attacher.await_readers)
        self._launcher.watch(process.id, process.learn)  # with no turn between: it hears all that has not been told yet
        self._ender.resume(process)
        self._count(process)
        return process

    def _read_note(self, adopted: Adopted) -> ProcessNote:
        try:
            return decode_note(adopted.note)
        except ValueError as error:
            _log.error("the note of process %s cannot be read, its deadline is not known: %s", adopted.process, error)
            self.adoption.unread_notes += 1
            return ProcessNote()

    def _count(self, process: LiveProcess) -> None:
        if process.start_error is not None:
            self.adoption.never_ran += 1
        elif process.one_shot:
            self.adoption.one_shots += 1
        elif process.running:
            self.adoption.running += 1
        else:
            self.adoption.ended += 1
