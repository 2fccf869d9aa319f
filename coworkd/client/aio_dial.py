"""URI → connected trio stream ready for `hello`. Rules and errors as `dial`; the caller bounds the time.

A virtio-serial port is a character device: `trio.lowlevel.FdStream`. Cancelled, nothing stays open.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

import trio

from coworkd.client.dial import (
    BACKLOG_RETRY_S,
    HANDSHAKE_BYTES,
    RESYNC_INTERVAL_S,
    is_socket,
    open_port,
    unreachable,
    vsock_family,
)
from coworkd.model.errors import Unavailable
from coworkd.wire.endpoint import Endpoint, HybridEndpoint, UnixEndpoint, VsockEndpoint
from coworkd.wire.hybrid import HybridDial
from coworkd.wire.limits import RemoteProtocolError
from coworkd.wire.resync import NONCE_BYTES, HostResync


class AsyncDialled(NamedTuple):
    """A connected stream, and what it said already."""

    stream: trio.abc.Stream
    first: bytes


async def dial(endpoint: Endpoint) -> AsyncDialled:
    """Connect and shake hands; the caller closes the stream. Raises `Unavailable`."""
    try:
        stream = await _connect(endpoint)
    except OSError as error:
        raise unreachable(endpoint, error) from error
    try:
        return AsyncDialled(stream, await _shake_hands(endpoint, stream))
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error, Unavailable | RemoteProtocolError):
            raise Unavailable(f"{endpoint}: {error.message}") from error
        if isinstance(error, trio.BrokenResourceError):
            raise Unavailable(f"{endpoint}: the connection broke during the handshake; try again") from error
        raise


async def _connect(endpoint: Endpoint) -> trio.abc.Stream:
    if isinstance(endpoint, VsockEndpoint):
        return await _connect_socket(vsock_family(), (endpoint.cid, endpoint.port))
    if isinstance(endpoint, UnixEndpoint | HybridEndpoint) or is_socket(endpoint.path):
        return await _connect_socket(socket.AF_UNIX, endpoint.path)
    return trio.lowlevel.FdStream(open_port(endpoint.path))


async def _connect_socket(family: int, address: str | tuple[int, int]) -> trio.SocketStream:
    connected = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, str):
            await _connect_unix(connected, address)
        else:
            await connected.connect(address)
        return trio.SocketStream(connected)
    except BaseException:
        connected.close()
        raise


async def _connect_unix(connecting: trio.socket.SocketType, path: str) -> None:
    """trio takes the EAGAIN of a full backlog for a connection on its way (unix(7)); there is none, so it is asked again."""
    with socket.socket(fileno=os.dup(connecting.fileno())) as same:
        same.setblocking(False)
        while True:
            try:
                same.connect(path)
            except BlockingIOError:
                await trio.sleep(BACKLOG_RETRY_S)
            else:
                return


async def _shake_hands(endpoint: Endpoint, stream: trio.abc.Stream) -> bytes:
    """Whatever must be said before `hello`; returns the guest's first bytes."""
    if isinstance(endpoint, HybridEndpoint):
        return await _ask_monitor(HybridDial(endpoint.port), stream)
    if isinstance(endpoint, UnixEndpoint | VsockEndpoint):
        return b""
    return await _resync(HostResync(os.urandom(NONCE_BYTES)), stream)


async def _ask_monitor(handshake: HybridDial, stream: trio.abc.Stream) -> bytes:
    await stream.send_all(handshake.request)
    while True:
        data = bytes(await stream.receive_some(HANDSHAKE_BYTES))
        if not data:
            handshake.receive_eof()
        first = handshake.feed(data)
        if first is not None:
            return first


async def _resync(resync: HostResync, stream: trio.abc.Stream) -> bytes:
    """As `dial._resync`."""
    sent = 0
    while True:
        if not resync.synced:
            await stream.send_all(resync.mark)
            sent += 1
        data: bytes | None = None
        with trio.move_on_after(RESYNC_INTERVAL_S):
            data = bytes(await stream.receive_some(HANDSHAKE_BYTES))
        if data == b"":
            raise Unavailable("the port was closed at its other end; is the VM up?")
        first = resync.feed(data or b"")
        if resync.synced and (sent == 1 or first or data is None):
            return first
