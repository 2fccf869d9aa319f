"""URIs of endpoints → types.

`vsock://CID:PORT` · `unix:///PATH` · `hybrid:///PATH?port=N` (a unix socket of the machine monitor that wants
`CONNECT N` first) · `virtio:///PATH` (a virtio-serial port).

Pure: nothing is opened. Whatever is refused is `InvalidParams` and says how it should be written.
Sources: unix(7) for the length of a path, vsock(7) for the numbers, docs/protocol.md E-1 to E-5.
"""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote, urlsplit

from msgspec import Struct

from coworkd.model.errors import InvalidParams
from coworkd.wire.limits import UINT32_MAX

UNIX_PATH_MAX_BYTES = 107
SPELLINGS = "unix:///PATH, vsock://CID:PORT, hybrid:///PATH?port=N or virtio:///dev/virtio-ports/NAME"


class VsockEndpoint(Struct, frozen=True, kw_only=True, tag="vsock"):
    """A vsock address to connect to."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock://{self.cid}:{self.port}"


class VsockPort(Struct, frozen=True, kw_only=True, tag="vsock-port"):
    """A vsock port to listen on, `vsock://:PORT`. For guests only."""

    port: int

    def __str__(self) -> str:
        return f"vsock://:{self.port}"


class UnixEndpoint(Struct, frozen=True, kw_only=True, tag="unix"):
    """A unix stream socket at an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix://{quote(self.path)}"


class HybridEndpoint(Struct, frozen=True, kw_only=True, tag="hybrid"):
    """A unix stream socket behind which a machine monitor connects to the guest's vsock `port`. For clients only."""

    path: str
    port: int

    def __str__(self) -> str:
        return f"hybrid://{quote(self.path)}?port={self.port}"


class VirtioEndpoint(Struct, frozen=True, kw_only=True, tag="virtio"):
    """A virtio-serial port, one byte stream without connections: see `resync`."""

    path: str

    def __str__(self) -> str:
        return f"virtio://{quote(self.path)}"


Endpoint = VsockEndpoint | UnixEndpoint | HybridEndpoint | VirtioEndpoint
ServedEndpoint = VsockEndpoint | VsockPort | UnixEndpoint | VirtioEndpoint

_VSOCK_LISTEN = "vsock://:"


def parse_endpoint(uri: str) -> Endpoint:
    """Return what `uri` names, or raise `InvalidParams`."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _refused(uri, str(error)) from error
    if parts.fragment or (parts.query and parts.scheme != "hybrid"):
        raise _refused(uri, "nothing may follow the address")
    if parts.scheme == "vsock":
        cid, _, port = parts.netloc.partition(":")
        if parts.path:
            raise _refused(uri, "a vsock address has no path")
        return VsockEndpoint(cid=_uint32(uri, "CID", cid), port=_uint32(uri, "port", port))
    if parts.scheme not in ("unix", "hybrid", "virtio"):
        raise _refused(uri, "unknown kind of endpoint")
    path = _path(uri, parts.netloc, parts.path)
    if parts.scheme == "virtio":
        return VirtioEndpoint(path=path)
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_MAX_BYTES:
        raise _refused(uri, f"the path of a unix socket has at most {UNIX_PATH_MAX_BYTES} bytes")
    if parts.scheme == "unix":
        return UnixEndpoint(path=path)
    return HybridEndpoint(path=path, port=_query_port(uri, parts.query))


def parse_served_endpoint(uri: str) -> ServedEndpoint:
    """Return what a guest is told to serve: a listener, a port to open, or (`VsockEndpoint`) a host to dial."""
    if uri.startswith(_VSOCK_LISTEN):
        return VsockPort(port=_uint32(uri, "port", uri[len(_VSOCK_LISTEN) :]))
    endpoint = parse_endpoint(uri)
    if isinstance(endpoint, HybridEndpoint):
        raise _refused(uri, "a guest cannot serve a hybrid socket, its machine monitor does")
    return endpoint


def _path(uri: str, netloc: str, quoted: str) -> str:
    path = unquote(quoted)
    if netloc or not path.startswith("/") or path.endswith("/"):
        raise _refused(uri, "the path must be absolute: three slashes, then the path")
    if "\0" in path:
        raise _refused(uri, "a path cannot hold a NUL")
    return path


def _query_port(uri: str, query: str) -> int:
    fields = parse_qs(query, keep_blank_values=True)
    if set(fields) != {"port"} or len(fields["port"]) != 1:
        raise _refused(uri, "exactly one ?port=N must follow the path")
    return _uint32(uri, "port", fields["port"][0])


def _uint32(uri: str, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= UINT32_MAX):
        raise _refused(uri, f"the {what} must be a number below 2^32")
    return int(text)


def _refused(uri: str, reason: str) -> InvalidParams:
    return InvalidParams(f"{uri!r} is no endpoint: {reason}; write {SPELLINGS}", key="endpoint")
