"""The state of the slots, kept: read once, and written before what it says is done. Blocking file work, in a thread, at one place.

A state that cannot be written is `DiskFailed`, and the one before holds. Nothing is made on disk until there is something to write.
"""

from __future__ import annotations

import os
from functools import partial

import trio

from coworkd.model.errors import DiskFailed
from coworkd.release.slots import SlotState
from coworkd.release.store import read_state, write_state
from coworkd.system.slot_files import HeldFiles


class SlotStates:
    """`load` first."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.state = SlotState()
        self.loaded = False

    async def load(self) -> str:
        """What is wrong with what was there; empty where nothing is. Raises `DiskFailed`."""
        try:
            self.state, wrong = await trio.to_thread.run_sync(self._read)
        except OSError as error:
            raise DiskFailed(f"{self.directory}: {error.strerror}", errno=error.errno) from error
        self.loaded = True
        return wrong

    async def save(self, state: SlotState) -> None:
        """Durable when it returns; nothing is written where nothing has changed. Raises `DiskFailed`."""
        if state == self.state:
            return
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(partial(self._write, state))
            except OSError as error:
                said = f"the state of the slots cannot be written to {self.directory}: {error.strerror}"
                raise DiskFailed(said, errno=error.errno) from error
            self.state = state

    def _read(self) -> tuple[SlotState, str]:
        try:
            with HeldFiles(self.directory) as files:
                return read_state(files)
        except FileNotFoundError:
            return SlotState(), ""

    def _write(self, state: SlotState) -> None:
        os.makedirs(self.directory, 0o700, exist_ok=True)
        with HeldFiles(self.directory) as files:
            write_state(files, state)
