"""What a keeper writes down: every event in logs/keeper.log, and each change of state in state/last.json.

A disk that takes no more stops no machine: what could not be written of the log is counted there, a record that could not be written is
tried again with the next state.
"""

from __future__ import annotations

import logging
import os

import trio

from host_stub.bundle import Bundle
from host_stub.keeper_lock import identify, write_record
from host_stub.keeper_words import Record
from host_stub.logs import BoundedLog, compose_note
from host_stub.machine import Machine
from host_stub.machine_events import EventRing
from host_stub.words import MachineEvent

_log = logging.getLogger("cowork-vm.keeper")


class Diary:
    """`serve` as long as the machine lives, then `flush`. Owns logs/keeper.log."""

    def __init__(self, bundle: Bundle, machine: Machine, events: EventRing) -> None:
        self._bundle = bundle
        self._machine = machine
        self._events = events
        self._log = BoundedLog(bundle.logs / "keeper.log")
        self._seen = 0
        self._writing = trio.Lock()

    async def serve(self) -> None:
        """Write until cancelled."""
        while True:
            await self._events.wait_after(self._seen)
            await self.flush()

    async def flush(self) -> None:
        """Write all that has happened by now, cancelled or not."""
        with trio.CancelScope(shield=True):
            async with self._writing:
                events, missed = self._events.after(self._seen)
                self._seen = self._events.last_seq
                record = self._record(events)
                await trio.to_thread.run_sync(self._write, events, missed, record)

    def close(self) -> None:
        self._log.close()

    def _record(self, events: tuple[MachineEvent, ...]) -> Record | None:
        """What to keep of the last change of state, or of a pid that is new since; None where there is none of either."""
        for event in reversed(events):
            if event.state is not None:
                return self._compose(event, event.message)
            if event.kind == "progress" and "pid" in event.details:
                return self._compose(event, event.message)
        return None

    def _compose(self, event: MachineEvent, message: str) -> Record:
        pid = self._machine.pid
        return Record(
            state=event.state or self._machine.state,
            message=message,
            at=event.at,
            keeper_pid=os.getpid(),
            machine_pid=pid,
            machine_created=None if pid is None else identify(pid),
            details=event.details,
        )

    def _write(self, events: tuple[MachineEvent, ...], missed: int, record: Record | None) -> None:
        lines = [compose_note(f"{missed} events are not written here", events[0].at)] if missed else []
        for event in events:
            label = event.kind if event.state is None else event.state.value
            lines.append(compose_note(f"{label}: {event.message}", event.at))
        self._log.write(lines)
        if record is not None:
            try:
                write_record(self._bundle, record)
            except OSError as error:
                _log.warning("state/last.json could not be written: %s", error)
