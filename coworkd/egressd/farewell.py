"""The end of a client's connection: the last words, our end of file, and a short wait for the client's.

A client may still be sending. To close then would make the kernel answer with a reset, which can overtake the words and destroy them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from coworkd.egressd.loop import IN, ONCE, OUT, Turning
from coworkd.egressd.tcp import reset

_WAIT_S = 1.0
_DRAIN_LIMIT_BYTES = 1024 * 1024
_READ_BYTES = 65536


class Farewell:
    """Owns the socket. `over` is called once, when it is closed; perhaps from within `start`."""

    __slots__ = ("_drained_bytes", "_loop", "_out", "_over", "_registered", "_shut", "_socket", "deadline")

    def __init__(self, loop: Turning, client: socket.socket, words: bytes, over: Callable[[], None]) -> None:
        self._loop = loop
        self._socket = client
        self._out = words
        self._over: Callable[[], None] | None = over
        self._registered = False
        self._shut = False
        self._drained_bytes = 0
        self.deadline = loop.now + _WAIT_S
        """Who owns it calls `cut` then."""

    def start(self, *, registered: bool) -> None:
        """Begin; `registered` says whether the loop has the socket."""
        self._registered = registered
        if registered:
            self._loop.handle(self._socket.fileno(), self._ready)
        self._ready(0)

    def cut(self) -> None:
        """Not to wait any longer."""
        reset(self._socket)
        self._close()

    def _ready(self, _: int) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out) :]
            if self._out:
                self._watch()
                return
            if not self._shut:
                self._shut = True
                self._socket.shutdown(socket.SHUT_WR)
            while self._drained_bytes < _DRAIN_LIMIT_BYTES:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    break
                self._drained_bytes += len(data)
        except BlockingIOError:
            self._watch()
            return
        except OSError:  # it is gone, which is what was waited for
            pass
        self._close()

    def _watch(self) -> None:
        mask = ONCE | (OUT if self._out else IN)
        fd = self._socket.fileno()
        if self._registered:
            self._loop.modify(fd, mask)
        else:
            self._registered = True
            self._loop.register(fd, mask, self._ready)

    def _close(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            over()
