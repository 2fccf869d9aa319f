"""The hybrid socket of a VZ machine: unix connections on one side, vsock connections that VZ made on the other, bytes between them.

    client → CONNECT 5005\\n     host → guest: VZ is asked for a connection to the port, `OK n\\n` is said, bytes go both ways
    {vsock}_{port}               guest → host: VZ's process has dialled it already, both ends come here

Rules
- A handshake takes at most `HANDSHAKE_S`, VZ's answer included. What is no handshake, or a port nobody answers at, is closed without OK.
- At most `CLIENTS` at once; who comes then is closed at once.
- A relay holds one piece each way, so who does not read slows only what it reads. An end is passed on as an end.
- A connection is given back to VZ when its relay has ended, and not before (see `virtual_machine`).

Source: Firecracker's docs/vsock.md, for the handshake (`coworkd.wire.hybrid`).
"""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable

import trio

from coworkd.model.errors import CoworkError
from coworkd.wire.hybrid import HybridAccept, compose_ok
from host_stub.egress_relay import Relay
from host_stub.words import Trouble

CLIENTS = 1024
HANDSHAKE_S = 10.0
_BACKLOG = 128
_READ_BYTES = 4096


class GuestConnection:
    """A vsock connection VZ made: owns the descriptor; `release` is called once, at the end."""

    def __init__(self, fd: int, local_port: int, release: Callable[[], None]) -> None:
        self.stream = stream_from(fd)
        self.local_port = local_port
        self._release = release

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)
        self._release()


def stream_from(fd: int) -> trio.SocketStream:
    """VZ's descriptors are unix stream sockets."""
    return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)))


class Hybrid:
    """`connect(port)` asks VZ; it raises Trouble. `serve` owns `listener`."""

    def __init__(self, connect: Callable[[int], Awaitable[GuestConnection]]) -> None:
        self._connect = connect
        self._clients = 0

    async def serve(self, listener: socket.socket) -> None:
        """Never returns."""
        listener.listen(_BACKLOG)
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await trio.serve_listeners(self._serve_client, [accepting])

    async def relay_incoming(self, guest: GuestConnection, host: trio.SocketStream) -> None:
        """One connection of the guest's, until its end. Closes both."""
        try:
            await Relay(guest.stream, host).run(idle_s=math.inf)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(host)
                await guest.aclose()

    async def _serve_client(self, client: trio.SocketStream) -> None:
        if self._clients >= CLIENTS:
            await trio.aclose_forcefully(client)
            return
        self._clients += 1
        guest: GuestConnection | None = None
        try:
            guest = await self._shake_hands(client)
            if guest is not None:
                await Relay(guest.stream, client).run(idle_s=math.inf)
        finally:
            self._clients -= 1
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)
                if guest is not None:
                    await guest.aclose()

    async def _shake_hands(self, client: trio.SocketStream) -> GuestConnection | None:
        guest: GuestConnection | None = None
        done = False
        try:
            with trio.move_on_after(HANDSHAKE_S):
                asked = await _read_request(client)
                if asked is not None:
                    port, first = asked
                    guest = await self._connect(port)
                    await client.send_all(compose_ok(guest.local_port))
                    await guest.stream.send_all(first)
                    done = True
        except (Trouble, CoworkError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            if guest is not None and not done:
                with trio.CancelScope(shield=True):
                    await guest.aclose()
        return guest if done else None


async def _read_request(client: trio.SocketStream) -> tuple[int, bytes] | None:
    """The port and the bytes behind the line; None where it ends before. Raises `RemoteProtocolError`."""
    handshake = HybridAccept()
    while data := await client.receive_some(_READ_BYTES):
        if (asked := handshake.feed(data)) is not None:
            return asked
    return None
