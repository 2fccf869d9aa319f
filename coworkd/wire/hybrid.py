"""The handshake of a hybrid socket, without I/O: how a unix socket of a machine monitor leads to a vsock port.

    client  → CONNECT 5005\\n
    monitor → OK 1073741824\\n      (the port it chose on its side; only shown), and from then on the guest's bytes
    monitor closes the socket if nothing listens on that port

Rules: a line has at most `LINE_MAX_BYTES`; bytes behind the line belong to the link and are handed on untouched; each
object serves one handshake. Breaches are `RemoteProtocolError` (`hybrid`).
Source: Firecracker `docs/vsock.md`, "Host-Initiated Connections".
"""

from __future__ import annotations

from coworkd.model.errors import Unavailable
from coworkd.wire.limits import UINT32_MAX, RemoteProtocolError

LINE_MAX_BYTES = 64


class HybridDial:
    """The client's side. Send `request`, `feed` what comes until it is not None, then the link begins."""

    def __init__(self, port: int) -> None:
        self.request = b"CONNECT %d\n" % port
        self._port = port
        self._taken = b""

    def feed(self, data: bytes) -> bytes | None:
        """Return the guest's first bytes (often none) once the monitor said OK, or None if more is needed.

        Raises `Unavailable` if it said anything else.
        """
        self._taken += data
        split = _split_line(self._taken)
        if split is None:
            return None
        line, rest = split
        if not line.startswith(b"OK "):
            raise Unavailable(f"the machine monitor refused port {self._port}: it said {line!r}")
        return rest

    def receive_eof(self) -> None:
        """The monitor closed before OK. Raises `Unavailable`."""
        raise Unavailable(f"nothing listens on port {self._port} of the guest; is coworkd up there?")


class HybridAccept:
    """The monitor's side: `feed` until it is not None; then connect to the port, send `compose_ok`, and relay."""

    def __init__(self) -> None:
        self._taken = b""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """Return the port asked for and the client's first bytes, or None if more is needed."""
        self._taken += data
        split = _split_line(self._taken)
        if split is None:
            return None
        line, rest = split
        word, _, number = line.partition(b" ")
        if word != b"CONNECT" or not number.isdigit() or len(number) > 10 or int(number) > UINT32_MAX:
            raise RemoteProtocolError(f"expected CONNECT and a port, got {line!r}", rule="hybrid")
        return int(number), rest


def compose_ok(local_port: int) -> bytes:
    """The monitor's answer when the guest accepted."""
    return b"OK %d\n" % local_port


def _split_line(taken: bytes) -> tuple[bytes, bytes] | None:
    line, newline, rest = taken.partition(b"\n")
    if len(line) > LINE_MAX_BYTES:
        raise RemoteProtocolError(f"a hybrid handshake line is longer than {LINE_MAX_BYTES} bytes", rule="hybrid")
    return (line, rest) if newline else None
