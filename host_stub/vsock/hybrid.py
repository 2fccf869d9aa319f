"""The host's side of the vsock, as unix sockets in the hybrid style: whoever wants a port of the guest, and where the guest's wishes go.

    PATH        a client says `CONNECT port\\n`; once the guest took it, it reads `OK port\\n`, and from then on both are joined
    PATH_port   what the guest gets when it connects to CID 2 at that port

Rules
- A line is looked at before it is taken from the socket, so that what a client sends behind it stays in the socket, in order.
- Whoever says nothing is closed after `HANDSHAKE_S`; beyond `HANDSHAKE_LIMIT` silent clients the oldest is closed, so that they keep
  nobody out.
- Sockets are made with mode 0600. A socket of that name that nobody listens on is taken away first; one in use is an error, as is any
  other file.
- A guest may only ask for what stands in `allowed_ports`, where there is such a list.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

from coworkd.wire.hybrid import LINE_MAX_BYTES, HybridAccept
from coworkd.wire.limits import RemoteProtocolError

HANDSHAKE_S = 10.0
HANDSHAKE_LIMIT = 256
_BACKLOG = 128
_LISTENING_PATH_BYTES = 107 - len("_4294967295")


class HybridError(Exception):
    """A hybrid socket cannot be made there, with the reason."""


class Handshake:
    """One client before it is joined. `deadline` is when it is closed."""

    def __init__(self, client: socket.socket, deadline: float) -> None:
        self.client, self.deadline = client, deadline

    def read(self) -> int | None:
        """The port once the line is there, else None. Raises `RemoteProtocolError` for junk and `EOFError` for a client that left."""
        try:
            seen = self.client.recv(LINE_MAX_BYTES + 1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            raise EOFError from error
        if not seen:
            raise EOFError
        asked = HybridAccept().feed(seen)
        if asked is None:
            return None
        port, behind = asked
        self.client.recv(len(seen) - len(behind))
        return port

    def close(self) -> None:
        """Close the client."""
        self.client.close()


def listen(path: Path) -> socket.socket:
    """Listen at `path`; raises `HybridError`. Whoever closes it takes the file away with `remove`."""
    if len(os.fsencode(path)) > _LISTENING_PATH_BYTES:
        raise HybridError(f"{path} is too long for a socket: at most {_LISTENING_PATH_BYTES} bytes")
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise HybridError(f"{path} cannot be listened on: {error.strerror or error}") from error
    finally:
        os.umask(umask)
    return listener


def remove(path: Path) -> None:
    """Take the file of a socket away that was listened on."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def dial(path: Path, port: int, allowed_ports: Collection[int] | None) -> socket.socket | None:
    """Connect to what listens for the guest at `port`; None if nothing does, nothing may, or no descriptor is left for it."""
    if allowed_ports is not None and port not in allowed_ports:
        return None
    try:
        host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None
    host.setblocking(False)
    try:
        host.connect(f"{os.fspath(path)}_{port}")
    except OSError:
        host.close()
        return None
    return host


def _make_way(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise HybridError(f"{path} is there and is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            remove(path)
            return
        except OSError as error:
            raise HybridError(f"{path} is in use: {error.strerror or error}") from error
    raise HybridError(f"{path} is in use by another process")


__all__ = [
    "HANDSHAKE_LIMIT",
    "HANDSHAKE_S",
    "Handshake",
    "HybridError",
    "RemoteProtocolError",
    "dial",
    "listen",
    "remove",
]
