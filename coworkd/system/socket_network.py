"""Which network namespace a socket lives in. Source: socket(7) SO_NETNS_COOKIE (Linux 5.14)."""

from __future__ import annotations

import socket
import sys

_SO_NETNS_COOKIE = 71


def network_cookie(any_socket: socket.socket) -> int:
    """A number that no other network namespace of this boot has, gone ones included. Raises `OSError` (ENOPROTOOPT before 5.14)."""
    return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
