"""The device as a program: the monitor's socket, the hybrid socket, every connection's socket and the rings, in one loop.

Rules
- One monitor at a time; another one is turned away while it is there, and may come once it has left. When it leaves, all connections end.
- A ring the guest breaks stops, all connections end, the monitor is told, and a line says why; the guest may start its driver anew.
- A ring that goes on where it was stopped (a paused machine) keeps the connections; one that goes on elsewhere (a reset, a restored clone)
  ends them, and says so on the event queue where there is one.
- Out of descriptors, nobody is accepted for `_ACCEPT_PAUSE_S`; nothing else stops.
- A turn is bounded in every part, so no client, no guest and no monitor keeps the others waiting.

Everything is by readiness: nothing here blocks, and nothing turns without need.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

from host_stub.vsock import hybrid
from host_stub.vsock.device import EVENT, RX, TX, Vring
from host_stub.vsock.front_end import FrontEnd
from host_stub.vsock.hybrid import Handshake, RemoteProtocolError
from host_stub.vsock.loop import EDGES, HANG_UP, IN, NOTHING, OUT, Loop
from host_stub.vsock.memory import GuestError
from host_stub.vsock.messages import FrontEndError
from host_stub.vsock.ring import Ring
from host_stub.vsock.streams import HostEnd
from host_stub.vsock.traffic import Traffic, announce_reset

_ACCEPTS_A_TURN = 32
_ACCEPT_PAUSE_S = 0.1
_KICK_BYTES = 8


class Server:
    """Listens from the moment it is made, until `close`. `say` gets a line for people.

    `monitors` is a listening socket, which stays the caller's and is not blocking. Raises `HybridError` for `hybrid_path`.
    """

    def __init__(
        self,
        *,
        monitors: socket.socket,
        hybrid_path: Path,
        cid: int,
        allowed_ports: Collection[int] | None = None,
        say: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hybrid_path, self._cid, self._say, self._clock = hybrid_path, cid, say, clock
        self._clients = hybrid.listen(hybrid_path)
        self._monitors = monitors
        self._loop = Loop()
        self._kicks: list[int] = [-1, -1, -1]
        self._front_end: FrontEnd | None = None
        self._handshakes: dict[int, Handshake] = {}
        self._accept_at: float | None = None
        self._more = self._stopped = False
        self.traffic = Traffic(
            cid,
            lambda port: hybrid.dial(hybrid_path, port, allowed_ports),
            opened=self._open,
            closed=self._forget,
            clock=clock,
        )
        self._loop.register(self._monitors.fileno(), IN, self._accept_monitor)
        self._loop.register(self._clients.fileno(), IN, self._accept_clients)

    def watch(self, fd: int, handler: Callable[[int], object]) -> None:
        """Have `handler` called while `fd` can be read: for signals."""
        self._loop.register(fd, IN, handler)

    def run(self) -> None:
        """Turn until `stop`."""
        while not self._stopped:
            self.turn()

    def stop(self) -> None:
        """End `run` after this turn."""
        self._stopped = True

    def turn(self, wait_s: float | None = None) -> bool:
        """Wait for what comes, at most `wait_s`, and do it; whether anything was done or is left to do."""
        ready = self._loop.turn(0.0 if self._more else self._wait_s(wait_s))
        self._look_at_clock()
        self._more = self._move()
        return bool(ready) or self._more

    def close(self) -> None:
        """End all connections, take the sockets' files away."""
        if self._front_end is not None:
            self._end_monitor("the device ends")
        self.traffic.reset_all()
        for handshake in list(self._handshakes.values()):
            self._drop(handshake)
        self._clients.close()
        hybrid.remove(self._hybrid_path)
        self._loop.close()

    # -- the guest ---------------------------------------------------------------------------------------------------

    def _move(self) -> bool:
        if self._front_end is None:
            return False
        vrings = self._front_end.device.vrings
        try:
            more = self.traffic.turn()
        except GuestError as error:
            self._break(str(error))
            return False
        if self.traffic.call_rx:
            self.traffic.call_rx = False
            vrings[RX].call()
        if self.traffic.call_tx:
            self.traffic.call_tx = False
            vrings[TX].call()
        return more

    def _break(self, reason: str) -> None:
        assert self._front_end is not None
        self._say(f"the guest broke its queues: {reason}")
        self.traffic.reset_all()
        for vring in self._front_end.device.vrings[:EVENT]:
            vring.fail(reason)
            self.changed(vring.index)

    def changed(self, index: int) -> None:
        """A queue has started, stopped, or has another descriptor to be kicked by."""
        assert self._front_end is not None
        vring = self._front_end.device.vrings[index]
        if index == RX:
            self.traffic.rx = vring.ring
        elif index == TX:
            self.traffic.tx = vring.ring
        if self._kicks[index] != vring.kick_fd:
            self._watch_kick(index, vring.kick_fd)
        if vring.ring is not None and vring.moved:
            vring.moved = False
            if index == TX:
                self.traffic.reset_all()
            elif index == EVENT:
                self._announce_reset(vring, vring.ring)
        self._more = True

    def _announce_reset(self, vring: Vring, ring: Ring) -> None:
        try:
            if announce_reset(ring):
                vring.call()
        except GuestError as error:
            self._say(f"the guest broke its event queue: {error}")
            vring.fail(str(error))

    def releasing(self, fd: int) -> None:
        """The monitor's copy of a kick would keep it in epoll."""
        self._loop.unregister(fd)

    def _watch_kick(self, index: int, fd: int) -> None:
        self._kicks[index] = fd
        if fd < 0:
            return
        try:
            os.set_blocking(fd, False)
            self._loop.register(fd, IN, lambda _: _take_kick(fd))
        except OSError as error:
            raise FrontEndError(f"a queue cannot be kicked by its descriptor: {error.strerror}") from error

    # -- the monitor -------------------------------------------------------------------------------------------------

    def _accept_monitor(self, _: int) -> None:
        connection = _accept(self._monitors)
        if connection is None:
            return
        if self._front_end is not None:
            self._say("another machine monitor was turned away: one has this device")
            connection.close()
            return
        self._front_end = FrontEnd(connection, self._cid, self)
        self._loop.register(connection.fileno(), IN, self._hear_monitor)
        self._say("the machine monitor is there")

    def _hear_monitor(self, _: int) -> None:
        front_end = self._front_end
        if front_end is not None:
            front_end.read()
            if front_end.closed is not None:
                self._end_monitor(front_end.closed)

    def _end_monitor(self, reason: str) -> None:
        front_end = self._front_end
        assert front_end is not None
        self._say(f"the machine monitor is gone: {reason}")
        self._loop.unregister(front_end.socket.fileno())
        front_end.close()
        self._front_end = None
        self.traffic.reset_all()

    # -- clients -----------------------------------------------------------------------------------------------------

    def _accept_clients(self, _: int) -> None:
        for _turn in range(_ACCEPTS_A_TURN):
            try:
                client = _accept(self._clients)
            except OSError as error:
                self._say(f"nobody can be accepted for a moment: {error.strerror}")
                self._loop.modify(self._clients.fileno(), NOTHING)
                self._accept_at = self._clock() + _ACCEPT_PAUSE_S
                return
            if client is None:
                return
            if len(self._handshakes) >= hybrid.HANDSHAKE_LIMIT:
                self._drop(next(iter(self._handshakes.values())))
            handshake = Handshake(client, self._clock() + hybrid.HANDSHAKE_S)
            self._handshakes[client.fileno()] = handshake
            self._loop.register(client.fileno(), IN | EDGES, self._hearer(handshake))

    def _hearer(self, handshake: Handshake) -> Callable[[int], object]:
        return lambda _: self._hear_client(handshake)

    def _hear_client(self, handshake: Handshake) -> None:
        try:
            port = handshake.read()
        except (EOFError, RemoteProtocolError):
            self._drop(handshake)
            return
        if port is not None:
            self._part(handshake)
            if self.traffic.connect(handshake.client, port) is None:
                handshake.close()
            self._more = True

    def _drop(self, handshake: Handshake) -> None:
        self._part(handshake)
        handshake.close()

    def _part(self, handshake: Handshake) -> None:
        fd = handshake.client.fileno()
        self._loop.unregister(fd)
        del self._handshakes[fd]

    # -- what is joined ----------------------------------------------------------------------------------------------

    def _open(self, end: HostEnd) -> None:
        if end.asked_by_host:
            end.greet()
        self._loop.register(end.socket.fileno(), IN | OUT | EDGES, lambda mask: self._heed(end, mask))

    def _heed(self, end: HostEnd, mask: int) -> None:
        hung_up = bool(mask & HANG_UP)
        self.traffic.heed(end, readable=hung_up or bool(mask & ~OUT), writable=bool(mask & OUT), hung_up=hung_up)

    def _forget(self, end: HostEnd) -> None:
        self._loop.unregister(end.socket.fileno())

    # -- time --------------------------------------------------------------------------------------------------------

    def _look_at_clock(self) -> None:
        now = self._clock()
        self.traffic.expire()
        while self._handshakes:
            handshake = next(iter(self._handshakes.values()))
            if handshake.deadline > now:
                break
            self._drop(handshake)
        if self._accept_at is not None and self._accept_at <= now:
            self._accept_at = None
            self._loop.modify(self._clients.fileno(), IN)

    def _wait_s(self, most_s: float | None) -> float | None:
        oldest = next(iter(self._handshakes.values()), None)
        dues = (self.traffic.next_due, self._accept_at, oldest.deadline if oldest else None)
        waits = [max(0.0, due - self._clock()) for due in dues if due is not None]
        return min([*waits, *([] if most_s is None else [most_s])], default=None)


def _accept(listener: socket.socket) -> socket.socket | None:
    """The next client, or None; raises OSError where no more descriptors or memory are to be had."""
    try:
        client, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    client.setblocking(False)
    return client


def _take_kick(fd: int) -> None:
    """Every turn looks at the rings; a kick only has to begin one."""
    with contextlib.suppress(BlockingIOError):
        os.read(fd, _KICK_BYTES)
