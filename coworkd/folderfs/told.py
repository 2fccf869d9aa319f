"""What is told over a folder's socket: changes, and all else that `model.folder` has words for. Never waits.

Rules
- Changes are gathered for `GATHER_S` or until there are `BATCH`, and told in order, before anything else is said.
- What the socket has no room for waits here: at most `WAITING` changes, of which the oldest are dropped and counted in `lost`; and at
  most `WORDS` other messages. `say` answers False where one finds no room, and it was not said.
- Of two like changes of attributes in a row, one is told.

The descriptor stays the caller's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec

from coworkd.model.folder import Changed, ChangeKind, FolderChange, FromFolder
from coworkd.system import packet

GATHER_S = 0.02
BATCH = 128
WAITING = 8192
WORDS = 4096
_encode = msgspec.msgpack.Encoder().encode


class Told:
    """The speaking half of a folder's socket, which is made non-blocking."""

    def __init__(self, control: socket.socket, monotonic: Callable[[], float] = time.monotonic) -> None:
        control.setblocking(False)
        self._control = control
        self._monotonic = monotonic
        self._changes: deque[FolderChange] = deque()
        self._words: deque[bytes] = deque()
        self._gathering_since = 0.0
        self._number = 0
        self._lost = 0
        self.stuck = False
        """Whether the socket had no room: to be flushed when it has."""

    def change(self, change: ChangeKind, path: bytes, pid: int, *, to: bytes = b"", size: int = -1) -> None:
        """Something was changed."""
        if not self._changes:
            self._gathering_since = self._monotonic()
        elif change == "attributes" and self._changes[-1].change == "attributes" and self._changes[-1].path == path:
            return
        if len(self._changes) >= WAITING:
            self._changes.popleft()
            self._lost += 1
        self._changes.append(FolderChange(change=change, path=path, to=to, size=size, pid=pid, at=time.time()))
        if len(self._changes) >= BATCH and not self.stuck:
            self.flush()

    def say(self, message: FromFolder) -> bool:
        """Tell it after the changes that came before; False where it found no room."""
        if len(self._words) >= WORDS:
            return False
        while self._changes:
            self._gather()
        self._words.append(_encode(message))
        self.flush()
        return True

    def due_in_s(self) -> float | None:
        """When to flush next; None where nothing waits, or for room alone."""
        if self.stuck or not self._changes:
            return None
        return max(0.0, self._gathering_since + GATHER_S - self._monotonic())

    def flush(self) -> None:
        """Send what can be sent."""
        self.stuck = False
        while self._words or self._changes:
            if not self._words:
                self._gather()
            if not self._send(self._words[0]):
                self.stuck = True
                return
            self._words.popleft()

    def _gather(self) -> None:
        """Turn the oldest changes into a message."""
        batch = tuple(self._changes.popleft() for _ in range(min(BATCH, len(self._changes))))
        self._number += 1
        self._words.append(_encode(Changed(number=self._number, changes=batch, lost=self._lost)))
        self._lost = 0

    def _send(self, message: bytes) -> bool:
        data, ancillary, memfd = packet.pack(message)
        try:
            self._control.sendmsg(data, ancillary)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # who listened is gone; the loop sees the end of file
            pass
        finally:
            if memfd >= 0:
                with contextlib.suppress(OSError):
                    os.close(memfd)
        return True
