"""The gate before a command's exec: a pipe in which its sandbox waits for a byte, and whose other end is the supervisor's own.

    supervisor: GO ─▶ │ one byte │ ─▶ bubblewrap (`--block-fd`), or the shim
                      │ the rest │    stays, and says that the gate was opened

Rules
- Whoever waits takes one byte of `launch.GO`, which has more than can ever wait: so that it was opened can be seen afterwards, by us,
  whatever has become of the supervisor.
- bubblewrap takes an end of file for a byte. So the end in which it waits is opened for writing as well: it has no end as long as the
  reader lives, and neither our death nor a mistake opens it.

Source: pipe(7), ioctl(2) (FIONREAD), bwrap(1).
"""

from __future__ import annotations

import fcntl
import os
import termios


class Gate:
    """Owns `read`, the end in which a sandbox waits, until `close`; and `write` until it was given. Raises `OSError` on making."""

    __slots__ = ("read", "write")

    def __init__(self) -> None:
        read, self.write = os.pipe2(os.O_CLOEXEC)
        self.read = -1
        try:
            self.read = os.open(f"/proc/self/fd/{read}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise
        finally:
            os.close(read)

    @property
    def opened(self) -> bool:
        return any(fcntl.ioctl(self.read, termios.FIONREAD, bytes(4)))

    def give(self) -> None:
        """The supervisor has its copy of `write`: ours is closed. Idempotent."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def close(self) -> None:
        """Nobody waits here any more. Idempotent."""
        self.give()
        if self.read >= 0:
            os.close(self.read)
            self.read = -1
