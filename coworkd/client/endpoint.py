"""URIs → endpoints → connected sockets, without trio.

`vsock://CID:PORT` · `unix:///PATH` · `hybrid:///PATH?port=N` (a unix socket that wants `CONNECT N\\n` and answers
`OK …\\n`: Firecracker, cloud-hypervisor, our QEMU stub) · `virtio:///PATH` (a virtio-serial port, or the unix socket a
VMM offers for its other end).

Rules
- `parse_uri` is pure; everything it refuses is `InvalidParams` and names what is wrong.
- `dial` gives a connected stream ready for `hello`; what fails on the way is `Unavailable`, with what to look at.
- No retry here: a host that waits for a guest decides itself how long.

Sources: vsock(7), Firecracker `docs/vsock.md` ("Host-Initiated Connections"), docs/protocol.md E-1 to E-7.
"""

from __future__ import annotations

import os
import socket
import stat
import termios
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from coworkd.model.errors import InvalidParams, Unavailable

Kind = Literal["vsock", "unix", "hybrid", "virtio"]
SPELLINGS = "unix:///PATH, vsock://CID:PORT, hybrid:///PATH?port=N or virtio:///dev/virtio-ports/NAME"
UNIX_PATH_LIMIT_BYTES = 107
"""`sun_path` of unix(7) without its closing NUL."""
_CONNECT_ANSWER_LIMIT_BYTES = 64


@dataclass(frozen=True)
class Endpoint:
    """Where a guest listens. `path` is set for all kinds but vsock, `cid` for vsock, `port` for vsock and hybrid."""

    kind: Kind
    path: str = ""
    cid: int = 0
    port: int = 0


class Stream(Protocol):
    """What the sync client needs of a connection: `socket.socket` has it, and so has a virtio-serial port."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, limit_bytes: int, /) -> bytes: ...

    def settimeout(self, timeout_s: float | None, /) -> None: ...

    def close(self) -> None: ...


def parse_uri(uri: str) -> Endpoint:
    """Return what `uri` names, or raise `InvalidParams`."""
    parts = urlsplit(uri)
    if parts.scheme == "vsock":
        return _parse_vsock(uri, parts.netloc, parts.path)
    if parts.scheme not in ("unix", "hybrid", "virtio"):
        raise InvalidParams(f"{uri!r} is no endpoint: write {SPELLINGS}", key="uri")
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path == "/" or "\0" in path:
        raise InvalidParams(f"{uri!r} needs an absolute path after three slashes: {parts.scheme}:///PATH", key="uri")
    if parts.scheme != "virtio" and len(os.fsencode(path)) > UNIX_PATH_LIMIT_BYTES:
        raise InvalidParams(f"{uri!r}: a unix socket's path holds at most {UNIX_PATH_LIMIT_BYTES} bytes", key="uri")
    if parts.scheme == "hybrid":
        return Endpoint("hybrid", path=path, port=_parse_port_query(uri, parts.query))
    if parts.query or parts.fragment:
        raise InvalidParams(f"{uri!r}: nothing may follow the path", key="uri")
    return Endpoint("unix" if parts.scheme == "unix" else "virtio", path=path)


def _parse_vsock(uri: str, netloc: str, path: str) -> Endpoint:
    cid, colon, port = netloc.partition(":")
    if path or not colon or not _is_u32(cid) or not _is_u32(port):
        raise InvalidParams(f"{uri!r} is no vsock endpoint: write vsock://CID:PORT with two numbers", key="uri")
    return Endpoint("vsock", cid=int(cid), port=int(port))


def _parse_port_query(uri: str, query: str) -> int:
    fields = parse_qs(query)
    values = fields.get("port", [])
    if set(fields) != {"port"} or len(values) != 1 or not _is_u32(values[0]):
        raise InvalidParams(f"{uri!r} needs the guest's port: hybrid:///PATH?port=5005", key="uri")
    return int(values[0])


def _is_u32(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32


def dial(endpoint: Endpoint, *, timeout_s: float) -> Stream:
    """Connect; the caller closes the stream. `timeout_s` bounds every step; raises `Unavailable`."""
    try:
        if endpoint.kind == "vsock":
            return _dial_vsock(endpoint, timeout_s)
        if endpoint.kind == "virtio":
            return open_virtio(endpoint.path, timeout_s)
        connected = _dial_unix(endpoint.path, timeout_s)
    except OSError as problem:
        raise unreachable(endpoint, problem) from problem
    if endpoint.kind == "hybrid":
        _ask_hybrid(connected, endpoint)
    return connected


def unreachable(endpoint: Endpoint, problem: OSError) -> Unavailable:
    """The error of an endpoint that could not be opened, with what to look at."""
    if endpoint.kind == "vsock":
        where, remedy = f"vsock {endpoint.cid}:{endpoint.port}", "is the VM up, and has it a vsock device?"
    elif isinstance(problem, PermissionError):
        where, remedy = endpoint.path, "the socket belongs to root: use sudo"
    else:
        where, remedy = endpoint.path, "is coworkd running? (systemctl status coworkd, or: coworkd local --help)"
    reason = "it did not answer in time" if isinstance(problem, TimeoutError) else (problem.strerror or str(problem))
    return Unavailable(f"cannot connect to {where}: {reason}; {remedy}", errno=problem.errno, path=endpoint.path or None)


def _dial_unix(path: str, timeout_s: float) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(timeout_s)
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def _dial_vsock(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    connected = socket.socket(vsock_family(), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(timeout_s)
        connected.connect((endpoint.cid, endpoint.port))
    except BaseException:
        connected.close()
        raise
    return connected


def vsock_family() -> int:
    """`AF_VSOCK`, or `OSError` where this system's Python has none (macOS)."""
    family: int | None = getattr(socket, "AF_VSOCK", None)
    if family is None:
        raise OSError(None, "this system has no vsock sockets; use a hybrid:/// endpoint of the VMM")
    return family


def _ask_hybrid(connected: socket.socket, endpoint: Endpoint) -> None:
    """Say `CONNECT port` and read the one answer line, byte by byte so that nothing of the guest's is taken."""
    try:
        connected.sendall(connect_line(endpoint))
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < _CONNECT_ANSWER_LIMIT_BYTES:
            byte = connected.recv(1)
            if not byte:
                break
            answer += byte
        check_connect_answer(endpoint, answer)
    except OSError as problem:
        connected.close()
        raise unreachable(endpoint, problem) from problem
    except Unavailable:
        connected.close()
        raise


def connect_line(endpoint: Endpoint) -> bytes:
    """What a hybrid socket wants to hear first."""
    return b"CONNECT %d\n" % endpoint.port


def check_connect_answer(endpoint: Endpoint, answer: bytes) -> None:
    """Raise `Unavailable` unless `answer` is the line `OK …`."""
    if answer.startswith(b"OK ") and answer.endswith(b"\n"):
        return
    said = f"it answered {answer!r}" if answer else "it closed the connection"
    raise Unavailable(
        f"{endpoint.path}: nothing listens on port {endpoint.port} of the guest ({said}); is coworkd up in there?",
        path=endpoint.path,
    )


class PortStream:
    """A virtio-serial character device as a `Stream`: raw, no timeouts below `timeout_s` of `settimeout`, closes its fd."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._timeout_s: float | None = None

    def settimeout(self, timeout_s: float | None, /) -> None:
        self._timeout_s = timeout_s

    def recv(self, limit_bytes: int, /) -> bytes:
        self._wait(for_write=False)
        return os.read(self._fd, limit_bytes)

    def sendall(self, data: bytes, /) -> None:
        view = memoryview(data)
        while view:
            self._wait(for_write=True)
            view = view[os.write(self._fd, view) :]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _wait(self, *, for_write: bool) -> None:
        import select

        poll = select.poll()
        poll.register(self._fd, select.POLLOUT if for_write else select.POLLIN)
        if not poll.poll(None if self._timeout_s is None else self._timeout_s * 1000):
            raise TimeoutError("the port stayed silent")


def open_virtio(path: str, timeout_s: float) -> Stream:
    """Open a virtio-serial port, or the unix socket of its other end. Raises `OSError`; the caller closes it."""
    if stat.S_ISSOCK(os.stat(path).st_mode):
        return _dial_unix(path, timeout_s)
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _make_raw(fd)
    except BaseException:
        os.close(fd)
        raise
    stream = PortStream(fd)
    stream.settimeout(timeout_s)
    return stream


def _make_raw(fd: int) -> None:
    """Turn a tty's line discipline off (a pty stands in for the port in tests; the port itself is no tty)."""
    if os.isatty(fd):
        import tty

        tty.setraw(fd, termios.TCSANOW)
