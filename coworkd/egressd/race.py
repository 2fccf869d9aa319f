"""Connecting to one of several endpoints: in order, the next one after `_NEXT_S` or at a failure, the first that answers wins.

Addresses are numeric: what was judged is what is dialled. IPv6 and IPv4 take turns, beginning with the family that the name service put
first. One that no answer comes from is not given up while others are tried; whoever owns the race sets its end.

Sources: RFC 8305 (without its own resolution), connect(2).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from coworkd.egressd.loop import ONCE, OUT, Timer, Turning

_NEXT_S = 0.25
_STREAM = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


class Endpoint(NamedTuple):
    """Where to connect to."""

    family: int
    address: str | tuple[str | int, int]
    """A path, or a numeric address or CID with its port."""


OnConnected = Callable[[socket.socket, Endpoint], None]
OnFailed = Callable[[int], None]


def take_turns(addresses: Sequence[str], port: int) -> list[Endpoint]:
    """The endpoints, IPv6 and IPv4 alternating, each family in its order."""
    families: dict[int, list[Endpoint]] = {}
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        families.setdefault(family, []).append(Endpoint(family, (address, port)))
    turns = zip_longest(*families.values())
    return [endpoint for turn in turns for endpoint in turn if endpoint is not None]


class Race:
    """One connection wanted. Calls one of the two, once, and neither after `cancel`.

    The socket belongs to who is called. Where `registered` says so it is in the loop, asking for nothing more.
    """

    __slots__ = (
        "_endpoints",
        "_errno",
        "_loop",
        "_on_connected",
        "_on_failed",
        "_pending",
        "_timer",
        "registered",
    )

    def __init__(
        self, loop: Turning, endpoints: Sequence[Endpoint], on_connected: OnConnected, on_failed: OnFailed
    ) -> None:
        self._loop = loop
        self._endpoints = list(reversed(endpoints))
        self._on_connected: OnConnected | None = on_connected
        self._on_failed: OnFailed | None = on_failed
        self._pending: dict[int, tuple[socket.socket, Endpoint]] = {}
        self._timer: Timer | None = None
        self._errno = errno.EHOSTUNREACH
        self.registered = False
        """Whether the socket that won is in the loop."""

    def start(self) -> None:
        """Try the first. May call back at once: a connection to this machine or its neighbour is open by then."""
        self._try_next()

    def cancel(self) -> None:
        """Give up; closes everything that was not handed over."""
        self._on_connected = self._on_failed = None
        self._stop_timer()
        for connection, _ in self._pending.values():
            self._loop.forget(connection.fileno())
            connection.close()
        self._pending.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _try_next(self) -> None:
        self._stop_timer()
        while self._endpoints:
            if self._try(self._endpoints.pop()):
                if self._endpoints and self._on_connected is not None:
                    self._timer = self._loop.call_later(_NEXT_S, self._try_next)
                return
        if not self._pending and self._on_failed is not None:
            on_failed, number = self._on_failed, self._errno
            self.cancel()
            on_failed(number)

    def _try(self, endpoint: Endpoint) -> bool:
        """Whether it is on its way, or there."""
        try:
            connection = socket.socket(endpoint.family, _STREAM)
        except OSError as error:
            self._errno = error.errno or errno.EIO
            return False
        number = connect(connection, endpoint)
        if number == 0:
            self._win(connection, endpoint)
        elif number == errno.EINPROGRESS:
            fd = connection.fileno()
            self._pending[fd] = (connection, endpoint)
            self._loop.register(fd, OUT | ONCE, lambda _: self._ready(fd))
        else:
            self._errno = number
            connection.close()
            return False
        return True

    def _ready(self, fd: int) -> None:
        pending = self._pending.get(fd)
        if pending is None:
            return
        connection, endpoint = pending
        number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == 0 and not is_connected(connection):
            return  # another descriptor's event
        del self._pending[fd]
        if number == 0:
            self.registered = True
            self._win(connection, endpoint)
            return
        self._errno = number
        self._loop.forget(fd)
        connection.close()
        self._try_next()

    def _win(self, connection: socket.socket, endpoint: Endpoint) -> None:
        on_connected = self._on_connected
        self.cancel()
        if on_connected is None:
            self._loop.forget(connection.fileno())
            connection.close()
        else:
            on_connected(connection, endpoint)


def connect(connection: socket.socket, endpoint: Endpoint) -> int:
    """connect(2), non-blocking: 0 if it is open, EINPROGRESS if that comes, another errno if not.

    The answer of a neighbour in memory is there when the call returns, and is only seen by the second one.
    """
    try:
        number = connection.connect_ex(endpoint.address)
        if number == errno.EINPROGRESS:
            number = connection.connect_ex(endpoint.address)
    except OSError as error:  # a path longer than any socket's
        return error.errno or errno.EINVAL
    if number == errno.EISCONN:
        return 0
    return errno.EINPROGRESS if number == errno.EALREADY else number


def is_connected(connection: socket.socket) -> bool:
    """Whether there is a peer."""
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


def connect_words(number: int) -> str:
    """What a failed connect(2) is called in a sentence."""
    return os.strerror(number).lower()
