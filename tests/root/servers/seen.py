"""What the servers were asked, one JSON line each in a file that tests read."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from typing import Any


class Seen:
    """The file. One write(2) a line, so that threads and processes share it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def connection(self, server: str, connection: socket.socket, **more: Any) -> None:
        """One accepted connection: where it came to and from where."""
        self.write(server=server, local=plain(connection.getsockname()), peer=plain(connection.getpeername()), **more)

    def write(self, **fields: Any) -> None:
        os.write(self._fd, json.dumps(fields).encode() + b"\n")


def plain(address: tuple[Any, ...]) -> str:
    """An address of a dual-stack socket as a person writes it, without the port."""
    parsed = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
