"""An open tunnel: bytes from socket to socket by splice(2), both ways, never looked at.

Rules
- A direction pulls only what its destination takes: the room in the destination's send buffer is asked for (`tcp.room`) and used up,
  then asked for again. So hardly anything is ever left in a pipe, and two thousand stalled tunnels hold none.
- What waits in a socket for its peer to read is bounded (`tcp.bound_unsent`), what is on its way is not: otherwise a few hundred readers
  that do not read would take all memory that the kernel has for TCP, and with it the rate of all others.
- A direction whose destination has no room is stalled: its source is not read until the destination is writable. Interest in the epoll
  changes then and at an end of file, at no other time. A descriptor of which nothing is wanted is still watched for a reset, and taken
  out once both its sides are shut, which would be told of again and again.
- At most `TURN_BYTES` a direction and a turn, and a session's busy directions share them: a fast tunnel waits for the others.
- An end of file goes on as such (shutdown of the other's sending side); when both directions have ended the tunnel has. A reset goes on
  as a reset, and ends both directions.
- Where a socket cannot be spliced (EINVAL), or there is no descriptor for a pipe, bytes are copied: slower, never wrong.

Sources: splice(2), epoll(7), tcp(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable

from coworkd.egressd.loop import ERROR, IN, OUT, Turning
from coworkd.egressd.pipes import BIG_BYTES, Pipe, PipePool, Share
from coworkd.egressd.tcp import bound_unsent, reset, room
from coworkd.system import splice

_FIRST_CREDIT_BYTES = 16 * 1024
"""What any fresh socket takes: short exchanges never ask."""
_LOW_CREDIT_BYTES = 4096
_SMALL_BYTES = 16 * 1024
_COPY_BYTES = 64 * 1024
_TROUBLE = select.EPOLLERR | select.EPOLLHUP

OnEnd = Callable[[str], None]
"""Called once with the reason, empty for an orderly end; both sockets are closed by then."""


class _Flow:
    """One direction."""

    __slots__ = (
        "bounded",
        "copies",
        "credit",
        "destination",
        "done",
        "held",
        "moved",
        "pending",
        "pipe",
        "source",
        "stalled",
    )

    def __init__(self, source: socket.socket, destination: socket.socket, pending: bytes) -> None:
        self.source = source
        self.destination = destination
        self.pending = pending
        """Bytes to go first: those that came behind a request, and those that were copied."""
        self.pipe: Pipe | None = None
        self.held = 0
        self.credit = _FIRST_CREDIT_BYTES
        self.moved = 0
        self.stalled = False
        self.done = False
        self.copies = False
        self.bounded: bool | None = None

    @property
    def reading(self) -> bool:
        return not (self.stalled or self.done)


class Relay:
    """One tunnel; owns both sockets from `start` on. `moved_at` is when bytes last moved."""

    __slots__ = (
        "_client",
        "_client_mask",
        "_down",
        "_loop",
        "_on_end",
        "_pool",
        "_share",
        "_up",
        "_upstream",
        "_upstream_mask",
        "ended",
        "moved_at",
    )

    def __init__(
        self, loop: Turning, pool: PipePool, share: Share, client: socket.socket, upstream: socket.socket, on_end: OnEnd
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._share = share
        self._client = client
        self._upstream = upstream
        self._on_end: OnEnd | None = on_end
        self._client_mask = self._upstream_mask = 0
        self._up = _Flow(client, upstream, b"")
        self._down = _Flow(upstream, client, b"")
        self.moved_at = loop.now
        self.ended = False

    @property
    def sent_bytes(self) -> int:
        """From the client to the upstream."""
        return self._up.moved

    @property
    def received_bytes(self) -> int:
        """From the upstream to the client."""
        return self._down.moved

    def start(self, *, to_client: bytes, to_upstream: bytes, client_mask: int, upstream_mask: int) -> None:
        """Send these bytes first, then pass on what comes. The masks: 0 for a socket the loop does not have, -1 for one it has."""
        self._client_mask, self._upstream_mask = client_mask, upstream_mask
        for fd, mask, handler in (
            (self._client.fileno(), client_mask, self._client_ready),
            (self._upstream.fileno(), upstream_mask, self._upstream_ready),
        ):
            if mask:
                self._loop.handle(fd, handler)
        self._up.pending, self._down.pending = to_upstream, to_client
        for flow in (self._down, self._up):
            if flow.pending and not self.ended:
                self._turn(flow)
        if not self.ended:
            self._set_interest()

    def end(self, reason: str) -> None:
        """Cut both ways, with resets unless both had ended."""
        if self.ended:
            return
        on_end = self._on_end
        self.abandon()
        if on_end is not None:
            on_end(reason)

    def abandon(self) -> None:
        """As `end`, calling nobody."""
        self.ended = True
        self._on_end = None
        if not (self._up.done and self._down.done):
            reset(self._client)
            reset(self._upstream)
        for flow in (self._up, self._down):
            if flow.pipe is not None:
                self._pool.let_go(flow.pipe, self._share)
                self._pool.discard(flow.pipe)
                flow.pipe = None
        for connection in (self._client, self._upstream):
            self._loop.forget(connection.fileno())
            connection.close()

    # -- events -------------------------------------------------------------------------------------------------

    def _client_ready(self, mask: int) -> None:
        self._ready(mask, self._client, self._up, self._down)

    def _upstream_ready(self, mask: int) -> None:
        self._ready(mask, self._upstream, self._down, self._up)

    def _ready(self, mask: int, connection: socket.socket, outgoing: _Flow, incoming: _Flow) -> None:
        """`outgoing` has its source here, `incoming` its destination."""
        if mask & OUT and incoming.stalled:
            self._turn(incoming)
        if mask & ~OUT and outgoing.reading and not self.ended:
            self._turn(outgoing)
        if mask & _TROUBLE and not self.ended:
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self._fail(connection, number)
            else:
                self._park(connection)

    def _park(self, connection: socket.socket) -> None:
        """A hang-up without an error, told until the descriptor is closed: not to be heard again where nothing else is wanted."""
        if connection is self._client and self._client_mask == ERROR:
            self._loop.unregister(connection.fileno())
            self._client_mask = 0
        elif connection is self._upstream and self._upstream_mask == ERROR:
            self._loop.unregister(connection.fileno())
            self._upstream_mask = 0

    def _turn(self, flow: _Flow) -> None:
        """Move what can be moved now."""
        try:
            before = flow.moved
            stalled = not self._move(flow)
        except OSError as error:
            self._fail_somewhere(flow, error)
            return
        if flow.moved != before:
            self.moved_at = self._loop.now
            self._share.count(flow.moved - before)
        if self._up.done and self._down.done:
            self.end("")
            return
        flow.stalled = stalled
        self._set_interest()

    def _fail_somewhere(self, flow: _Flow, error: OSError) -> None:
        """An error of one of the two: EPIPE is the destination's, whose reset may have been told by now."""
        side = flow.source
        if error.errno == errno.EPIPE or flow.held or flow.pending:
            side = flow.destination
            with contextlib.suppress(OSError):  # its last words, such as a refusal of what it no longer wanted to read
                self._move(self._down if flow is self._up else self._up)
        self._fail(side, error.errno or errno.EIO)

    def _fail(self, connection: socket.socket, number: int) -> None:
        name = "client" if connection is self._client else "upstream"
        gone = number in (errno.ECONNRESET, errno.EPIPE)
        self.end(f"{name} reset" if gone else f"{name}: {errno.errorcode.get(number, str(number))}")

    def _set_interest(self) -> None:
        up, down = self._up, self._down
        mask = ERROR | (IN if up.reading else 0) | (OUT if down.stalled else 0)
        if mask != self._client_mask:
            self._change(self._client.fileno(), self._client_mask, mask, self._client_ready)
            self._client_mask = mask
        mask = ERROR | (IN if down.reading else 0) | (OUT if up.stalled else 0)
        if mask != self._upstream_mask:
            self._change(self._upstream.fileno(), self._upstream_mask, mask, self._upstream_ready)
            self._upstream_mask = mask

    def _change(self, fd: int, old: int, new: int, handler: Callable[[int], None]) -> None:
        if old:
            self._loop.modify(fd, new)
        else:
            self._loop.register(fd, new, handler)

    # -- bytes --------------------------------------------------------------------------------------------------

    def _move(self, flow: _Flow) -> bool:
        """False where the destination takes no more; raises what the sockets raise."""
        if flow.pending and not self._send_pending(flow):
            return False
        if flow.held and not self._push(flow):
            return False
        left = self._share.allowance(self._loop.turns)
        while left > 0 and not flow.done:
            if flow.credit < _LOW_CREDIT_BYTES:
                if flow.bounded is None:
                    flow.bounded = bound_unsent(flow.destination)
                flow.credit = room(flow.destination, bounded=flow.bounded)
                if not flow.credit:
                    return False
            count = min(flow.credit, BIG_BYTES, left)
            got = self._copy(flow, min(count, _COPY_BYTES)) if flow.copies else self._pull(flow, count)
            if got < 0:
                return True
            left -= got
            if flow.held or flow.pending:
                return False
            if 0 < got < _SMALL_BYTES:  # most likely that was all; if not, the epoll tells
                return True
        return True

    def _pull(self, flow: _Flow, count: int) -> int:
        """One pipe full, in and out; -1 where the source has nothing. What is left in the pipe is held."""
        try:
            pipe = self._pool.borrow(self._share)
        except OSError:
            flow.copies = True
            return 0
        try:
            got = splice.splice(flow.source.fileno(), pipe.write, count)
        except BlockingIOError:
            self._pool.give_back(pipe)
            return -1
        except OSError as error:
            self._pool.give_back(pipe)
            if error.errno != errno.EINVAL:
                raise
            flow.copies = True
            return 0
        except BaseException:
            self._pool.discard(pipe)
            raise
        if not got:
            self._pool.give_back(pipe)
            self._finish(flow)
            return -1
        flow.pipe, flow.held = pipe, got
        self._pool.hold(pipe, self._share)
        self._push(flow)
        return got

    def _push(self, flow: _Flow) -> bool:
        """From the pipe into the destination; whether all of it went, and the pipe with it."""
        pipe = flow.pipe
        assert pipe is not None
        fd = flow.destination.fileno()
        while flow.held:
            try:
                went = splice.splice(pipe.read, fd, flow.held)
            except BlockingIOError:
                flow.credit = 0
                return False
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._take_out(flow, pipe)
                return self._send_pending(flow)
            flow.held -= went
            self._count(flow, went)
        flow.pipe = None
        self._pool.let_go(pipe, self._share)
        self._pool.give_back(pipe)
        return True

    def _take_out(self, flow: _Flow, pipe: Pipe) -> None:
        """The destination is none to splice into: what the pipe holds is copied, as is all that follows."""
        chunks = []
        while flow.held:
            chunks.append(os.read(pipe.read, flow.held))
            flow.held -= len(chunks[-1])
        flow.pending = b"".join(chunks)
        flow.copies = True
        flow.pipe = None
        self._pool.let_go(pipe, self._share)
        self._pool.give_back(pipe)

    def _copy(self, flow: _Flow, count: int) -> int:
        try:
            data = flow.source.recv(count)
        except BlockingIOError:
            return -1
        if not data:
            self._finish(flow)
            return -1
        flow.pending = data
        self._send_pending(flow)
        return len(data)

    def _send_pending(self, flow: _Flow) -> bool:
        try:
            went = flow.destination.send(flow.pending)
        except BlockingIOError:
            flow.credit = 0
            return False
        self._count(flow, went)
        flow.pending = flow.pending[went:]
        return not flow.pending

    def _count(self, flow: _Flow, went: int) -> None:
        flow.moved += went
        flow.credit -= went

    def _finish(self, flow: _Flow) -> None:
        """The source has ended, and all that it said has gone."""
        flow.done = True
        with contextlib.suppress(OSError):  # gone already: its own direction finds out
            flow.destination.shutdown(socket.SHUT_WR)
