"""The kernel's own vsock (vhost_vsock) in the shape that our device has: one hybrid unix socket.

    PATH         a host's connection says `CONNECT port\\n`, is told `OK n\\n`, and is joined to the guest's port
    PATH_port    where the guest's connection to CID 2 at `port` arrives

Taken only where it is asked for: the kernel's CIDs and ports are the whole host's, so a second machine finds the ports of the first
taken, and /dev/vhost-vsock needs rights. What it gives for that is speed.

Rules: only our guest's CID may come in; at most `LIMIT` connections; a handshake has 10 s and 32 bytes; the end of one direction is passed
on, an error ends both. A port of the host where nobody listens at PATH_port closes the guest's connection.

Does not look for a port's listener before a guest asks for it, and listens at the ports of `words` alone.

Sources: vsock(7), linux include/uapi/linux/vhost.h (VHOST_VSOCK_SET_GUEST_CID), Firecracker's docs/vsock.md for the handshake.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from host_stub.qemu.sockets import clear_leftover, listen_at
from host_stub.words import DIAL_PORT, EGRESS_PORT, Trouble

DEVICE = Path("/dev/vhost-vsock")
HOST_PORTS = (EGRESS_PORT, DIAL_PORT)
LIMIT = 1024
_HANDSHAKE_BYTES, _HANDSHAKE_S = 32, 10.0
_DIAL_S = 10.0
_CHUNK_BYTES = 64 << 10
_SET_OWNER, _SET_GUEST_CID = 0xAF01, 0x4008AF60
_ANY_CID = 0xFFFFFFFF
Dial = Callable[[int], Awaitable[trio.SocketStream]]


def check_device(cid: int, device: Path = DEVICE) -> None:
    """That the kernel gives a guest of this CID, asked of it without a guest. Raises Trouble `no_vsock`."""
    import fcntl

    try:
        opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_vsock(f"{device}: {error.strerror}") from error
    try:
        fcntl.ioctl(opened, _SET_OWNER)
        fcntl.ioctl(opened, _SET_GUEST_CID, struct.pack("Q", cid))
    except OSError as error:
        raise _no_vsock(
            "it is another machine's" if error.errno == errno.EADDRINUSE else f"{error.strerror}"
        ) from error
    finally:
        os.close(opened)


async def listen_for_guests(port: int) -> trio.SocketListener:
    """The host's end of the guest's own connections. Raises Trouble `socket_taken`."""
    listener = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        await listener.bind((_ANY_CID, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = f"the host's vsock port {port} is taken: {error.strerror}"
        raise Trouble("socket_taken", why, remedy="end the other machine, or leave the kernel's vsock out") from error
    return trio.SocketListener(listener)


def dial_guest(cid: int) -> Dial:
    """Connect to a port of the guest."""

    async def dial(port: int) -> trio.SocketStream:
        connecting = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            await connecting.connect((cid, port))
        except BaseException:
            connecting.close()
            raise
        return trio.SocketStream(connecting)

    return dial


class KernelVsock:
    """The relay of one machine. `listeners` are those of `listen_for_guests`, by port, or stand-ins."""

    def __init__(self, path: Path, cid: int, dial: Dial, listeners: Sequence[tuple[int, trio.SocketListener]]) -> None:
        self._path = path
        self._cid = cid
        self._dial = dial
        self._listeners = listeners
        self._room = trio.CapacityLimiter(LIMIT)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; the socket's file goes then. Raises Trouble where the path is taken."""
        ours = trio.SocketListener(trio.socket.from_stdlib_socket(listen_at(self._path)))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._bring_in, [ours])
                for port, listener in self._listeners:
                    nursery.start_soon(trio.serve_listeners, self._bringer_out(port), [listener])
                task_status.started()
        finally:
            clear_leftover(self._path)

    async def _bring_in(self, client: trio.SocketStream) -> None:
        """From the host: the handshake, then the guest."""
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with client:
                with trio.move_on_after(_HANDSHAKE_S) as waiting:
                    port = await read_port(client)
                if waiting.cancelled_caught or port is None:
                    return
                async with self._room:
                    with trio.fail_after(_DIAL_S):
                        guest = await self._dial(port)
                    async with guest:
                        await client.send_all(b"OK %d\n" % port)
                        await join(client, guest)

    def _bringer_out(self, port: int) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def bring_out(guest: trio.SocketStream) -> None:
            with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                async with guest:
                    if cid_of(guest) != self._cid:
                        return
                    async with self._room, await trio.open_unix_socket(f"{self._path}_{port}") as host:
                        await join(guest, host)

        return bring_out


def cid_of(stream: trio.SocketStream) -> int | None:
    """Whose connection it is; None where it has none."""
    peer = stream.socket.getpeername()
    return peer[0] if isinstance(peer, tuple) and isinstance(peer[0], int) else None


async def read_port(client: trio.abc.ReceiveStream) -> int | None:
    """The port of a `CONNECT port\\n`, read byte by byte, for what comes after it is the guest's. None for all else."""
    line = b""
    while not line.endswith(b"\n"):
        byte = await client.receive_some(1)
        line += byte
        if not byte or len(line) > _HANDSHAKE_BYTES:
            return None
    word, _, number = line.removesuffix(b"\n").partition(b" ")
    return int(number) if word == b"CONNECT" and number.isdigit() and int(number) < 1 << 32 else None


async def join(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    """Carry bytes both ways until both ways have ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_carry, one, other, nursery)
        nursery.start_soon(_carry, other, one, nursery)


async def _carry(
    source: trio.abc.HalfCloseableStream, target: trio.abc.HalfCloseableStream, nursery: trio.Nursery
) -> None:
    try:
        while data := await source.receive_some(_CHUNK_BYTES):
            await target.send_all(data)
        await target.send_eof()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        nursery.cancel_scope.cancel()


def _no_vsock(why: str) -> Trouble:
    return Trouble(
        "no_vsock", f"the kernel's vsock cannot be used: {why}", remedy="leave it out; our own device needs nothing"
    )
