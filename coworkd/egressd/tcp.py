"""Connected sockets as such: how they end, when small pieces go, and how much they take without keeping it.

Thin, without policy. What a socket surely takes is asked of the kernel in its own terms, so that it and epoll never differ: where they
did, whoever waits for room would be woken up for nothing, again and again.

Sources: socket(7), tcp(7), sock_diag(7) (SK_MEMINFO_*), linux/tcp.h (struct tcp_info), include/net/sock.h (`sk_stream_is_writeable`),
net/ipv4/tcp.c (`tcp_poll`; `tcp_stream_memory_free` counts twice what is unsent when it decides whether to wake).
"""

from __future__ import annotations

import contextlib
import socket
import struct

UNSENT_BYTES = 512 * 1024
_BLIND_BYTES = 64 * 1024
"""Where the kernel tells no room."""
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_TCP_NOTSENT_LOWAT = 25
_UNSENT_AT = 144
"""Of `tcpi_notsent_bytes` in struct tcp_info."""
_UNSENT = struct.Struct("=I")
_INFO_BYTES = _UNSENT_AT + _UNSENT.size
_RESET = struct.pack("ii", 1, 0)


def reset(connection: socket.socket) -> None:
    """Have close(2) send a reset (SO_LINGER 0, socket(7)), so that nobody takes what was cut for the whole."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def bound_unsent(destination: socket.socket) -> bool:
    """Have no more than `UNSENT_BYTES` wait in the socket for the peer's window (tcp(7), TCP_NOTSENT_LOWAT); False where it is not TCP."""
    try:
        destination.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    except OSError:
        return False
    return True


def room(destination: socket.socket, *, bounded: bool) -> int:
    """How many bytes the socket surely takes; 0 until epoll would call it writable. `bounded` is what `bound_unsent` said."""
    try:
        values = _MEMINFO.unpack(destination.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return _BLIND_BYTES
    limit: int = values[3]
    taken: int = values[5] or values[2]  # queued; unix sockets count what is in flight only
    free = limit - taken
    if free < taken >> 1:
        return 0
    free -= free // 8  # the kernel's own bookkeeping takes some
    if not bounded:
        return free
    unsent: int = _UNSENT.unpack_from(
        destination.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES), _UNSENT_AT
    )[0]
    return min(free, UNSENT_BYTES - unsent) if 2 * unsent < UNSENT_BYTES else 0


def no_delay(connection: socket.socket) -> None:
    """Small pieces go at once (tcp(7), TCP_NODELAY); sockets that are not TCP wait for nothing anyway."""
    with contextlib.suppress(OSError):  # or it is gone, and the first use of it tells
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
