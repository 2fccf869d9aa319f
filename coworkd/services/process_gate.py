"""The gate before a command, from coworkd's side: it opens once, when the record of the start is durable and the command's streams are
there, whichever is last.

The disk's own thread opens it where the disk was the last, so that a start waits for no turn of the loop behind it.
"""

from __future__ import annotations

import threading

from coworkd.model.ports import CommandGate


class Gate:
    """Two have to come, each from a thread of its own, and each once; the second opens it. Owns what it holds."""

    __slots__ = ("_awaited", "_held", "_lock", "_opened")

    def __init__(self, *, opened: bool = False) -> None:
        """`opened`: by the coworkd before us."""
        self._held: CommandGate | None = None
        self._lock = threading.Lock()
        self._awaited = 2
        self._opened = opened

    def hold(self, gate: CommandGate) -> None:
        """What is to be opened; before `ready`."""
        self._held = gate

    def recorded(self) -> None:
        """The record is durable. From the disk's thread."""
        self._come()

    def ready(self) -> None:
        """Whatever the command says will be kept."""
        self._come()

    def is_open(self) -> bool:
        """Whether the command was let in."""
        return self._opened

    def shut(self) -> bool:
        """It never opens from now on, whoever comes. Whether it has been opened before that. Idempotent."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.close()
        return self._opened

    def _come(self) -> None:
        with self._lock:
            self._awaited -= 1
            if self._awaited:
                return
            held, self._held = self._held, None
            self._opened = held is not None
        if held is not None:
            held.open()
