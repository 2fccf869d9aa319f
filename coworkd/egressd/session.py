"""One session: its listeners, its rules and its connections.

Rules
- Past `limits.connections` at once, or without a token for the rate, a connection is still accepted, and refused in its own protocol
  once it has said what it wants. Each further plain request of a connection takes a token too: it is a way out of its own. So
  does each inspected one, for it is a record of its own; without a token it is its connection's last.
- Past twice the number nothing is accepted; what comes waits in the backlog until there is room.
- Nothing is accepted while no event can be kept, nor for a moment after a lack of descriptors: that ends by others' closing.
- Listening sockets have copies elsewhere, so they are taken out of the loop by name before they are closed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from functools import partial

from coworkd.egressd.budget import Budget
from coworkd.egressd.connection import Connection
from coworkd.egressd.loop import IN
from coworkd.egressd.pipes import Share
from coworkd.egressd.refusals import Refusals
from coworkd.egressd.state import State
from coworkd.model.egress import EgressLimits, SessionEgress
from coworkd.netpolicy.decide import Rules
from coworkd.netpolicy.guard import Guard

_ACCEPTS_A_TURN = 16
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_SCARCE_WAIT_S = 0.1


class Session:
    """Owns its listeners and connections."""

    def __init__(self, state: State, name: str, egress: SessionEgress) -> None:
        self.state = state
        self.name = name
        self.share = Share()
        self.budget = Budget(state.loop)
        self.refusals = Refusals(state.events, lambda: state.loop.now)
        self.limits: EgressLimits = egress.limits
        self.rules = Rules(egress)
        self.guard = Guard(egress)
        self._connections: set[Connection] = set()
        self._listeners: list[socket.socket] = []
        self._listening = False
        self._scarce_until = 0.0
        self._tokens = float(egress.limits.burst)
        self._tokens_at = state.loop.now

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    # -- from the supervisor ------------------------------------------------------------------------------------

    def listen(self, fds: Sequence[int]) -> None:
        """Serve on these listening sockets, which become the session's, instead of those it had. Raises `OSError` with nothing changed."""
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(_copy_listener(fd)) for fd in fds]
            stack.pop_all()
        self._close_listeners()
        self._listeners = listeners
        self.listen_again()

    def change(self, egress: SessionEgress) -> None:
        """New rules, for what is asked from now on."""
        self.rules, self.guard, self.limits = Rules(egress), Guard(egress), egress.limits
        self._tokens = min(self._tokens, float(egress.limits.burst))

    def close_forbidden(self) -> int:
        """Close what the rules forbid now; how many that were."""
        return sum(connection.judge_again() for connection in list(self._connections))

    def close(self, reason: str) -> None:
        """Close everything."""
        self._close_listeners()
        for connection in list(self._connections):
            connection.end(reason)
        self.refusals.flush()

    # -- from the loop ------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Look at every deadline."""
        now = self.state.loop.now
        for connection in list(self._connections):
            connection.sweep(now)
        self.refusals.sweep()
        self.listen_again()

    def listen_again(self) -> None:
        """Accept, if it may be."""
        if self._listening or not self._may_accept():
            return
        self._listening = True
        try:
            for listener in self._listeners:
                self.state.loop.register(listener.fileno(), IN, partial(self._accept, listener))
        except OSError:  # the kernel has no memory for it now (ENOMEM, ENOSPC of epoll_ctl(2))
            self._pause()
            self._scarce_until = self.state.loop.now + _SCARCE_WAIT_S  # the sweep tries again

    def closed(self, connection: Connection) -> None:
        """One has ended."""
        self._connections.discard(connection)
        if not self._listening:
            self.state.loop.soon(self.listen_again)  # not within what ends there

    def _may_accept(self) -> bool:
        return (
            len(self._connections) < 2 * self.limits.connections
            and self.state.events.has_room
            and self.state.loop.now >= self._scarce_until
        )

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            for listener in self._listeners:
                self.state.loop.unregister(listener.fileno())

    def _accept(self, listener: socket.socket, _: int) -> None:
        family = listener.family
        for _ in range(_ACCEPTS_A_TURN):
            if not self._may_accept():
                self._pause()
                return
            try:
                fd, _address = listener._accept()  # type: ignore[attr-defined]  # accept() asks for family, type and protocol each time
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SCARCE:
                    self._scarce_until = self.state.loop.now + _SCARCE_WAIT_S
                    self.state.loop.call_later(_SCARCE_WAIT_S, self.listen_again)
                    self._pause()
                    return
                continue  # one that was gone before it was accepted
            client = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
            client.setblocking(False)
            self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        self.state.accepted_total += 1
        over_limit = len(self._connections) >= self.limits.connections or not self.take_token()
        connection = Connection(self, client, over_limit=over_limit)
        self._connections.add(connection)
        connection.start()

    def take_token(self) -> bool:
        """Whether one more may be asked for now: a bucket of `burst` tokens that fills at `rate_per_s`."""
        now = self.state.loop.now
        gained = (now - self._tokens_at) * self.limits.rate_per_s
        self._tokens_at = now
        self._tokens = min(float(self.limits.burst), self._tokens + gained)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _close_listeners(self) -> None:
        self._pause()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def _copy_listener(fd: int) -> socket.socket:
    """Raises `OSError` for what is no listening stream socket."""
    copy = os.dup(fd)
    try:
        listener = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    if listener.type != socket.SOCK_STREAM or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(errno.EINVAL, "a descriptor is no listening stream socket")
    listener.setblocking(False)
    return listener
