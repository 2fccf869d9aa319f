"""A virtio-serial port as a series of links, one after the other.

Rules
- Before each link both ends find a common beginning (`wire.resync`); what came before it is lost, and belongs to nobody.
- The port stays open from link to link. It is opened again only after it failed, or hung up, `IDLE_S` later.
- Closing a link's transport does not close the port: `PortLinks` owns it.

Source: docs/protocol.md E-5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from coworkd.rpc.transport import Buffer, PortTransport, Transport
from coworkd.system.serial_port import open_serial_port
from coworkd.wire.endpoint import VirtioEndpoint
from coworkd.wire.resync import GuestResync

IDLE_S = 0.5
_RECEIVE_BYTES = 64 * 1024


class _Borrowed:
    """One link's use of the port."""

    def __init__(self, port: Transport) -> None:
        self._port = port
        self._open = True

    async def receive(self, limit_bytes: int, /) -> bytes:
        self._check()
        return await self._port.receive(limit_bytes)

    async def send(self, buffers: Sequence[Buffer], /) -> None:
        self._check()
        await self._port.send(buffers)

    def send_nowait(self, frame: bytes, /) -> int:
        return self._port.send_nowait(frame) if self._open else 0

    def close(self) -> None:
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise trio.ClosedResourceError("this link's use of the port is over")


class PortLinks:
    """The links of one port. `open_port` opens the device and is there for tests."""

    kind = "virtio"

    def __init__(self, endpoint: VirtioEndpoint, open_port: Callable[[str], int] = open_serial_port) -> None:
        self.endpoint = str(endpoint)
        self._path = endpoint.path
        self._open_port = open_port
        self._port: PortTransport | None = None

    async def next_link(self) -> tuple[Transport, bytes]:
        """Wait for a host to mark a beginning; return the transport and the link's first bytes. Raises `OSError`.

        Call again when that link has ended.
        """
        resync = GuestResync()
        while True:
            if self._port is None:
                self._port = PortTransport(self._open_port(self._path))
            data = await self._receive(self._port)
            answer, first = resync.feed(data)
            if answer:
                await self._port.send([answer])
            if first:
                return _Borrowed(self._port), first
            if not data:
                resync = GuestResync()
                await trio.sleep(IDLE_S)

    async def _receive(self, port: PortTransport) -> bytes:
        """Read; a port that hung up gives no bytes, and one that failed is closed."""
        try:
            return await port.receive(_RECEIVE_BYTES)
        except OSError:
            self.close()
            return b""

    def close(self) -> None:
        """Close the port; idempotent."""
        port, self._port = self._port, None
        if port is not None:
            port.close()
