"""One connection to the launcher: packets out and in, with no turn of the loop where none is needed.

Rules
- A packet goes at once, unless others wait before it; then it waits behind them, cancelled or not.
- Whatever has come is taken in one turn, in order. Where a packet cannot be understood the connection is over.
- What comes without its descriptors, for want of room for them, is told as what it means then (`without_descriptors`).

Who asked for what is not known here. Sources: unix(7), SOCK_SEQPACKET.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

import msgspec
import trio

from coworkd.model import launch
from coworkd.services.launching_refusals import without_descriptors
from coworkd.system import packet

_AT_ONCE = 32
"""So many packets of a turn; then others have theirs."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(launch.Reply)
_log = logging.getLogger("coworkd.launching")


class Channel:
    """Owns the connection until `close`."""

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self._connection = connection
        # The same connection without trio's turn for every call; its kind is said, which Python would else ask the kernel for.
        self._now = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(connection.fileno()))
        self._sending = trio.Lock()

    async def send(self, request: launch.Request, fds: tuple[int, ...] = ()) -> None:
        """`fds` stay the caller's. Raises `OSError`."""
        data, ancillary, memfd = packet.pack(_encoder.encode(request), fds)
        try:
            if self._sending.locked() or not self._send_nowait(data, ancillary):
                with trio.CancelScope(shield=True):
                    await self._send_behind(data, ancillary)
        finally:
            if memfd >= 0:
                os.close(memfd)

    async def _send_behind(self, data: list[bytes], ancillary: packet.Ancillary) -> None:
        async with self._sending:
            while not self._send_nowait(data, ancillary):
                await trio.lowlevel.wait_writable(self._now)

    def _send_nowait(self, data: list[bytes], ancillary: packet.Ancillary) -> bool:
        try:
            self._now.sendmsg(data, ancillary)
        except BlockingIOError:
            return False
        return True

    async def receive(self, take: Callable[[launch.Reply, list[int]], None]) -> None:
        """Give `take` each reply with its descriptors, which are its own then. Returns when the connection is over."""
        try:
            while self._now.fileno() >= 0:
                await trio.lowlevel.wait_readable(self._now)
                if not self._take_what_came(take):
                    return
        except (OSError, trio.ClosedResourceError, packet.BrokenPacket, *packet.UNDECODABLE) as error:
            _log.error("the launcher broke off: %s", error)

    def _take_what_came(self, take: Callable[[launch.Reply, list[int]], None]) -> bool:
        """Whether more may come."""
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, flags, _ = self._now.recvmsg(*packet.RECEIVE_ARGUMENTS)
            except BlockingIOError:
                return True
            try:
                message, fds = packet.unpack(data, ancillary, flags)
            except packet.OutOfDescriptors as short:
                _log.error("no descriptor is left for what the launcher sends")
                take(without_descriptors(_decoder.decode(short.message)), [])
                continue
            if not message:
                return False
            try:
                reply = _decoder.decode(message)
            except packet.UNDECODABLE:
                for fd in fds:
                    os.close(fd)
                raise
            take(reply, fds)
        return True

    @property
    def pid(self) -> int:
        """Of the process at the other end (SO_PEERCRED, unix(7))."""
        record = self._now.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(record[:4], "little", signed=True)

    def close(self) -> None:
        """Who sends or receives hears of it. Idempotent."""
        if self._now.fileno() >= 0:
            trio.lowlevel.notify_closing(self._now)
            self._now.close()
            self._connection.close()
