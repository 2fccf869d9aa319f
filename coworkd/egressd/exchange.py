"""Two sockets and a `Pump` between them: plain HTTP requests, and inspected connections.

Rules
- Bytes wait for a side up to `BUFFER_LIMIT_BYTES`, then the other is not read; what waits is bounded by that and one read. A side for which
  twice as much waits is not read either: what a pump answers by itself (a KeyUpdate of TLS) is bounded as well.
- One read a side and a turn, while the session has time left in it (`budget`). One that took long to understand makes the exchange's next
  ones smaller, until they are quick again.
- The exchange ends in one of four ways (`Outcome`); the upstream is closed then, unless the bytes go on raw. The client stays its owner's.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable
from typing import Literal

from coworkd.egressd.budget import Budget
from coworkd.egressd.loop import ERROR, IN, OUT, Turning
from coworkd.egressd.pump import BUFFER_LIMIT_BYTES, Pump, Sends
from coworkd.egressd.race import connect_words

_READ_BYTES = 65536
_SMALL_READ_BYTES = 512
_LONG_S = 0.002
_TROUBLE = select.EPOLLERR | select.EPOLLHUP

Outcome = Literal["done", "ended", "raw", "lost"]
"""`done`: the upstream is finished with, the client may go on. `ended`: so is the client. `raw`: splice from here on. `lost`: the client
is gone."""
OnOver = Callable[[Outcome, str], None]
"""With a reason where something broke."""


class _Side:
    """One socket, and what is to be sent to it."""

    __slots__ = ("broken", "connection", "ended", "hung_up", "mask", "out")

    def __init__(self, connection: socket.socket, mask: int) -> None:
        self.connection = connection
        self.mask = mask
        self.out = bytearray()
        self.ended = False
        self.broken = False
        self.hung_up = False
        """Both its directions are shut, which epoll tells for ever."""


class Exchange:
    """See the rules. `moved_at` is when bytes last moved."""

    __slots__ = (
        "_budget",
        "_client",
        "_loop",
        "_on_over",
        "_pump",
        "_read_bytes",
        "_upstream",
        "moved_at",
        "received_bytes",
        "sent_bytes",
    )

    def __init__(
        self,
        loop: Turning,
        pump: Pump,
        client: socket.socket,
        upstream: socket.socket,
        on_over: OnOver,
        *,
        budget: Budget | None = None,
    ) -> None:
        """`budget` is the session's, where understanding may take long."""
        self._loop = loop
        self._budget = budget or Budget(loop)
        self._read_bytes = _READ_BYTES
        self._pump = pump
        self._client = _Side(client, 0)
        self._upstream = _Side(upstream, 0)
        self._on_over: OnOver | None = on_over
        self.moved_at = loop.now
        self.sent_bytes = self.received_bytes = 0

    def start(
        self, *, to_client: bytes, from_client: bytes, from_upstream: bytes, client_mask: int, upstream_mask: int
    ) -> None:
        """Begin with what is still to be sent, and what had come. The masks: -1 for a socket the loop has already, else 0."""
        self._client.mask, self._upstream.mask = client_mask, upstream_mask
        for side, handler in ((self._client, self._client_ready), (self._upstream, self._upstream_ready)):
            if side.mask:
                self._loop.handle(side.connection.fileno(), handler)
        self._client.out += to_client
        self._take(self._pump.start())
        if from_client:
            self._understand(self._pump.receive_client, from_client)
        if from_upstream:
            self.received_bytes += len(from_upstream)
            self._understand(self._pump.receive_upstream, from_upstream)
        self._settle()

    def end(self) -> None:
        """Let go: the upstream is closed, the client stays as it is. Calls nobody."""
        self._on_over = None
        self._close_upstream()

    def time_out(self, reason: str) -> None:
        """Nothing has moved for too long."""
        self._take(self._pump.lose_upstream(reason))
        self._settle(reason)
        self._over("ended", reason)

    @property
    def client_mask(self) -> int:
        """What the loop has for the client."""
        return self._client.mask

    @property
    def upstream_mask(self) -> int:
        """What the loop has for the upstream."""
        return self._upstream.mask

    @property
    def unsent(self) -> tuple[bytes, bytes]:
        """What is still to be sent to the client and to the upstream."""
        return bytes(self._client.out), bytes(self._upstream.out)

    # -- events -------------------------------------------------------------------------------------------------

    def _client_ready(self, mask: int) -> None:
        if self._on_over is None:
            return
        side = self._client
        if mask & (IN | _TROUBLE) and not side.ended and self._reads_client and self._budget.is_left:
            try:
                data = side.connection.recv(self._read_bytes)
            except BlockingIOError:
                data = None
            except OSError as error:
                self._over("lost", f"client: {connect_words(error.errno or errno.EIO)}")
                return
            if data is not None:
                side.ended = not data
                self.moved_at = self._loop.now
                self._understand(self._pump.receive_client, data)
        if mask & _TROUBLE and self._fails_quietly(side):
            self._over("lost", "client: it is gone")
            return
        self._settle()

    def _upstream_ready(self, mask: int) -> None:
        if self._on_over is None:
            return
        side = self._upstream
        reason = ""
        if mask & (IN | _TROUBLE) and not side.ended and self._reads_upstream and self._budget.is_left:
            try:
                data = side.connection.recv(self._read_bytes)
            except BlockingIOError:
                data = None
            except OSError as error:
                data = None
                side.ended = True
                reason = f"upstream: {connect_words(error.errno or errno.EIO)}"
                self._take(self._pump.lose_upstream(reason))
            if data is not None:
                side.ended = not data
                self.moved_at = self._loop.now
                self.received_bytes += len(data)
                self._understand(self._pump.receive_upstream, data)
        if mask & _TROUBLE and self._fails_quietly(side):
            side.ended = side.broken = True
            reason = "upstream: it is gone"
            self._take(self._pump.lose_upstream(reason))
        self._settle(reason)

    def _fails_quietly(self, side: _Side) -> bool:
        """Whether a socket of which nothing is wanted has an error. A mere hang-up is not listened to any more."""
        if side.mask != ERROR:
            return False
        if side.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        self._loop.unregister(side.connection.fileno())
        side.mask = 0
        side.hung_up = True
        return False

    def _understand(self, receive: Callable[[bytes], Sends], data: bytes) -> None:
        since = self._budget.begin()
        self._take(receive(data))
        took_s = self._budget.spend(since)
        if took_s > _LONG_S:
            self._read_bytes = max(_SMALL_READ_BYTES, min(self._read_bytes, len(data)) // 4)
        elif took_s < _LONG_S / 4:
            self._read_bytes = min(_READ_BYTES, self._read_bytes * 2)

    def _take(self, sends: Sends) -> None:
        self._client.out += sends.client
        self._upstream.out += sends.upstream

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def _reads_client(self) -> bool:
        return self._pump.wants_client and _may_read(self._client, other=self._upstream)

    @property
    def _reads_upstream(self) -> bool:
        return _may_read(self._upstream, other=self._client)

    def _settle(self, reason: str = "") -> None:
        """Send, see whether it is over, and ask for what comes next."""
        if self._on_over is None:
            return
        pump = self._pump
        if not self._flush(self._client):
            self._over("lost", "client: it does not take the answer")
            return
        if not self._flush(self._upstream) and not (pump.upstream_done or pump.ended):
            # What it said before it closed may be the answer: it is read to its end, and nothing more is sent to it.
            self._upstream.out.clear()
        if pump.raw:
            self._over("raw", reason)
        elif pump.ended:
            self._over("ended", reason)
        elif pump.upstream_done:
            self._over("done", reason)
        else:
            self._ask(self._client, self._client_ready, reads=self._reads_client)
            self._ask(self._upstream, self._upstream_ready, reads=self._reads_upstream)

    def _flush(self, side: _Side) -> bool:
        """False where the other end takes nothing any more."""
        if side.broken:
            return False
        while side.out:
            try:
                sent = side.connection.send(side.out)
            except BlockingIOError:
                return True
            except OSError:
                side.broken = True
                return False
            self.moved_at = self._loop.now
            if side is self._upstream:
                self.sent_bytes += sent
            del side.out[:sent]
        return True

    def _ask(self, side: _Side, handler: Callable[[int], None], *, reads: bool) -> None:
        mask = ERROR | (IN if reads and not side.ended else 0) | (OUT if side.out and not side.broken else 0)
        if mask == side.mask or (mask == ERROR and side.hung_up):
            return
        fd = side.connection.fileno()
        if side.mask:
            self._loop.modify(fd, mask)
        else:
            self._loop.register(fd, mask, handler)
        side.mask = mask

    def _over(self, outcome: Outcome, reason: str) -> None:
        on_over, self._on_over = self._on_over, None
        if on_over is None:
            return
        if outcome != "raw":
            self._close_upstream()
        on_over(outcome, reason)

    def _close_upstream(self) -> None:
        connection = self._upstream.connection
        if connection.fileno() >= 0:
            self._loop.forget(connection.fileno())
            with contextlib.suppress(OSError):
                connection.close()


def _may_read(side: _Side, *, other: _Side) -> bool:
    return len(other.out) < BUFFER_LIMIT_BYTES and len(side.out) < 2 * BUFFER_LIMIT_BYTES
