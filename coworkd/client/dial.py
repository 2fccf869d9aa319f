"""URI → connected stream ready for `hello`, blocking, without trio.

Rules
- A `Dialled` blocks in `recv` and `sendall`; a send the guest does not take in `SEND_LIMIT_S` fails. `first` are bytes of the
  guest's that came with a handshake; they belong to the link.
- What fails on the way is `Unavailable` and says what to look at; what is no endpoint is `InvalidParams`.
- No retry: a host that waits for a guest to boot decides itself how long.

Sources: vsock(7), unix(7), SO_SNDTIMEO of socket(7); docs/protocol.md E-1 to E-5.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import time
import tty
from collections.abc import Callable
from typing import NamedTuple, Protocol

from coworkd.model.errors import Unavailable
from coworkd.wire.endpoint import Endpoint, HybridEndpoint, UnixEndpoint, VsockEndpoint
from coworkd.wire.hybrid import HybridDial
from coworkd.wire.limits import RemoteProtocolError
from coworkd.wire.resync import NONCE_BYTES, HostResync

SEND_LIMIT_S = 30
"""A guest that takes no byte for this long is as good as gone: the send fails, and the link with it."""
RESYNC_INTERVAL_S = 1.0
BACKLOG_RETRY_S = 0.01
HANDSHAKE_BYTES = 4096


class Stream(Protocol):
    """What the sync client needs of a connection: `socket.socket` has it, and so has `PortStream`."""

    def fileno(self) -> int: ...

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, limit_bytes: int, /) -> bytes: ...

    def close(self) -> None: ...


class Dialled(NamedTuple):
    """A connected stream, and what it said already."""

    stream: Stream
    first: bytes


class PortStream:
    """A virtio-serial character device as a `Stream`; owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def recv(self, limit_bytes: int, /) -> bytes:
        return os.read(self._fd, limit_bytes)

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def dial(endpoint: Endpoint, *, timeout_s: float) -> Dialled:
    """Connect and shake hands; the caller closes the stream. `timeout_s` bounds all of it."""
    deadline = time.monotonic() + timeout_s
    try:
        stream = _connect(endpoint, timeout_s)
    except OSError as error:
        raise unreachable(endpoint, error) from error
    try:
        return Dialled(stream, _shake_hands(endpoint, stream, deadline))
    except OSError as error:
        stream.close()
        raise unreachable(endpoint, error) from error
    except (Unavailable, RemoteProtocolError) as error:
        stream.close()
        raise Unavailable(f"{endpoint}: {error.message}") from error


def _connect(endpoint: Endpoint, timeout_s: float) -> Stream:
    if isinstance(endpoint, VsockEndpoint):
        return _connect_socket(vsock_family(), (endpoint.cid, endpoint.port), timeout_s)
    if isinstance(endpoint, UnixEndpoint | HybridEndpoint) or is_socket(endpoint.path):
        return _connect_socket(socket.AF_UNIX, endpoint.path, timeout_s)
    return PortStream(open_port(endpoint.path))


def _connect_socket(family: int, address: str | tuple[int, int], timeout_s: float) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        _connect_before(connected, address, time.monotonic() + timeout_s)
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_LIMIT_S, 0))
    except BaseException:
        connected.close()
        raise
    return connected


def _connect_before(connecting: socket.socket, address: str | tuple[int, int], deadline: float) -> None:
    while True:
        connecting.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            connecting.connect(address)
        except BlockingIOError:  # a unix socket whose backlog is full says so at once (unix(7), EAGAIN)
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(BACKLOG_RETRY_S)
        else:
            return


def _shake_hands(endpoint: Endpoint, stream: Stream, deadline: float) -> bytes:
    """Whatever must be said before `hello`; returns the guest's first bytes."""
    if isinstance(endpoint, HybridEndpoint):
        return _ask_monitor(HybridDial(endpoint.port), stream, deadline)
    if isinstance(endpoint, UnixEndpoint | VsockEndpoint):
        return b""
    return _resync(HostResync(os.urandom(NONCE_BYTES)), stream, deadline)


def _ask_monitor(handshake: HybridDial, stream: Stream, deadline: float) -> bytes:
    stream.sendall(handshake.request)
    while True:
        data = receive_before(stream, deadline)
        if data is None:
            raise TimeoutError("the machine monitor did not answer")
        if not data:
            handshake.receive_eof()
        first = handshake.feed(data)
        if first is not None:
            return first


def _resync(resync: HostResync, stream: Stream, deadline: float) -> bytes:
    """Mark until it is answered. Where it was repeated, more answers may be on their way: they are waited for, and belong to nobody."""
    sent = 0
    while time.monotonic() < deadline:
        if not resync.synced:
            stream.sendall(resync.mark)
            sent += 1
        data = receive_before(stream, min(deadline, time.monotonic() + RESYNC_INTERVAL_S))
        if data == b"":
            raise Unavailable("the port was closed at its other end; is the VM up?")
        first = resync.feed(data or b"")
        if resync.synced and (sent == 1 or first or data is None):
            return first
    if resync.synced:
        return b""
    raise TimeoutError("nobody answers on the port")


def receive_before(stream: Stream, deadline: float, monotonic: Callable[[], float] = time.monotonic) -> bytes | None:
    """What came, b"" at the end of the stream, or None where nothing came before `deadline`."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
        return None
    return stream.recv(HANDSHAKE_BYTES)


def is_socket(path: str) -> bool:
    """Whether a machine monitor offers the port's other end as a unix socket. Raises `OSError`."""
    return stat.S_ISSOCK(os.stat(path).st_mode)


def open_port(path: str) -> int:
    """Open a virtio-serial port raw. Raises `OSError`; the caller closes the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(fd):
        tty.setraw(fd)
    return fd


def vsock_family() -> int:
    """`AF_VSOCK`, or `OSError` where this system has none (macOS)."""
    family: int | None = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError(None, "this system has no vsock sockets; use the hybrid:/// socket of the machine monitor")
    return family


def unreachable(endpoint: Endpoint, error: OSError) -> Unavailable:
    """The error of an endpoint that could not be reached, with what to look at."""
    reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
    if isinstance(endpoint, VsockEndpoint):
        remedy = "is the VM up, has it a vsock device, and does coworkd run in it?"
    elif isinstance(error, PermissionError):
        remedy = "it belongs to root: use sudo"
    elif isinstance(endpoint, UnixEndpoint):
        remedy = "is coworkd running? See: systemctl status coworkd, or start one: coworkd local --help"
    else:
        remedy = "is the VM up?"
    return Unavailable(f"cannot reach {endpoint}: {reason}; {remedy}", errno=error.errno, endpoint=str(endpoint))
