"""A command on its way into a sandbox whose shim waits for it: one message, in the words of `sandbox.shim`, and its descriptors.

The shim gets as far as the command's gate with it. Kept until the exec is known: a shim that dies before it has said a word has not run it,
and it can be sent to another.
"""

from __future__ import annotations

import os
import socket

from coworkd.launcher.outfit import Outfit
from coworkd.model.launch import Spawn
from coworkd.system.memfd import make_sealed

MESSAGE_LIMIT_BYTES = 32 * 1024
"""A longer one travels in a memfd, which is then the last descriptor; the message is one zero byte."""


class Handover:
    """Owns the memfd of a long message and, of `outfit`, what is given, until `close`."""

    __slots__ = ("_memfd", "_message", "outfit")

    def __init__(self, request: Spawn, outfit: Outfit, *, native: bytes) -> None:
        """`native` is the head of an ELF file of this machine, empty where none is to be judged. Raises `OSError`, owning nothing then."""
        self._message = compose_message(request, native)
        self._memfd = -1
        self.outfit = outfit
        if len(self._message) > MESSAGE_LIMIT_BYTES:
            self._memfd = make_sealed("command", self._message)
            self._message = b"\0"

    def send(self, link: socket.socket) -> None:
        """Raises `OSError` where nobody waits any more. The shim has the only end of the pipe for words on its exec afterwards."""
        memfd = [] if self._memfd < 0 else [self._memfd]
        socket.send_fds(link, [self._message], [*self.outfit.handed, *memfd])
        self.outfit.give_exec()

    def renew(self) -> int:
        """Make it ready for another shim: the pipe on which that one will say how it went. Raises `OSError`."""
        self.outfit.give_exec()
        self.outfit.add_exec()
        return self.outfit.exec_fd

    def close(self) -> None:
        """The command has its copies, or gets none. Idempotent."""
        self.outfit.give_away()
        if self._memfd >= 0:
            os.close(self._memfd)
            self._memfd = -1


def compose_message(request: Spawn, native: bytes) -> bytes:
    """The words of one command."""
    tty = request.tty
    size = b"" if tty is None else b"%d %d" % (tty.rows, tty.cols)
    head = (b"%d" % len(request.argv), request.cwd, size, native.hex().encode())
    return b"\0".join((*head, *request.argv, *request.environment))
