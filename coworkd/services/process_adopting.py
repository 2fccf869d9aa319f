"""Taking over what the launcher kept while coworkd was away.

Rules
- The start of an adopted process was told by the coworkd before us, and is not told again.
- Nobody waits for an adopted one-shot: it is ended, as one whose caller has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coworkd.model.ports import LauncherPort
from coworkd.services.process_building import Builder
from coworkd.services.process_ending import Ender
from coworkd.services.process_live import LiveProcess
from coworkd.services.process_request import ONE_SHOT_PREFIX
from coworkd.services.process_table import ProcessTable


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
        add: Add,
        vanished: Callable[[LiveProcess], None],
    ) -> None:
        """`vanished` ends one that nobody waits for."""
        self._launcher = launcher
        self._table = table
        self._builder = builder
        self._ender = ender
        self._add = add
        self._vanished = vanished

    async def adopt_all(self) -> None:
        """Take over everything the launcher has told of since the last time."""
        for adopted, fds in self._launcher.adopted:
            if adopted.process in self._table:
                # Told as lost when the connection broke: what is told stays true.
                fds.close()
                await self._ender.kill_lost(self._table.find(adopted.process))
                continue
            one_shot = adopted.process.startswith(ONE_SHOT_PREFIX)
            process = self._add(adopted.process, adopted.session, adopted.argv, one_shot=one_shot, adopted=True)
            self._launcher.watch(process.id, process.learn)
            self._builder.adopt(process, adopted, fds)
            await self._ender.record("process.adopt", process, argv=process.argv, state=process.state)
            if process.one_shot or process.start_error is not None:
                self._vanished(process)
