"""Asking a proxy before us for a way, over a connection to it: the handshakes of `proxy.upstream`, with a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from coworkd.egressd.loop import IN, ONCE, OUT, Turning
from coworkd.egressd.race import connect_words
from coworkd.egressd.tcp import no_delay
from coworkd.proxy.events import RefusalKind
from coworkd.proxy.upstream import Handshake, HttpConnect

_READ_BYTES = 16384
_ADDRESS_MARK = "blocked-by-sandbox-runtime"
"""X-Proxy-Error of a refusal after resolution, as our own proxies and sandbox-runtime's send it."""

OnOpen = Callable[[bytes], None]
"""What came behind the proxy's answer: the server's first bytes."""
OnRefused = Callable[[RefusalKind, str], None]


class Asking:
    """One handshake. Calls one of the two, once, perhaps from within `start`; neither after `cancel`. The socket stays the caller's.

    Afterwards the socket is in the loop, asking for nothing.
    """

    __slots__ = ("_connection", "_handshake", "_loop", "_name", "_on_open", "_on_refused", "_unsent")

    def __init__(
        self,
        loop: Turning,
        connection: socket.socket,
        handshake: Handshake,
        name: str,
        on_open: OnOpen,
        on_refused: OnRefused,
    ) -> None:
        """`name` is the proxy's, for people."""
        self._loop = loop
        self._connection = connection
        self._handshake = handshake
        self._name = name
        self._on_open: OnOpen | None = on_open
        self._on_refused: OnRefused | None = on_refused
        self._unsent = b""

    def start(self, *, registered: bool) -> None:
        """Begin; `registered` says whether the loop has the socket."""
        no_delay(self._connection)
        self._unsent = self._handshake.outgoing()
        fd = self._connection.fileno()
        if registered:
            self._loop.handle(fd, self._ready)
            self._loop.modify(fd, IN | OUT)
        else:
            self._loop.register(fd, IN | OUT, self._ready)

    def cancel(self) -> None:
        """Call nobody any more."""
        self._on_open = self._on_refused = None

    def _ready(self, _: int) -> None:
        """Send what is to be sent, take what came."""
        if self._on_open is None:
            return
        handshake = self._handshake
        try:
            self._send()
            with contextlib.suppress(BlockingIOError):
                handshake.receive_data(self._connection.recv(_READ_BYTES))
                self._unsent += handshake.outgoing()
                self._send()
        except OSError as error:
            self._refuse("connect", f"{self._name} broke off: {connect_words(error.errno or errno.EIO)}")
            return
        if handshake.failed is not None:
            self._refuse(_kind_of(handshake), handshake.failed)
        elif handshake.done:
            self._loop.modify(self._connection.fileno(), ONCE)
            on_open = self._on_open
            self.cancel()
            on_open(handshake.rest)
        else:
            self._loop.modify(self._connection.fileno(), IN | (OUT if self._unsent else 0))

    def _send(self) -> None:
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._connection.send(self._unsent) :]

    def _refuse(self, kind: RefusalKind, reason: str) -> None:
        on_refused = self._on_refused
        self.cancel()
        if on_refused is not None:
            on_refused(kind, reason)


def _kind_of(handshake: Handshake) -> RefusalKind:
    if not handshake.refused_by_policy:
        return "connect"
    mark = handshake.mark if isinstance(handshake, HttpConnect) else None
    return "address" if mark == _ADDRESS_MARK else "allowlist"
