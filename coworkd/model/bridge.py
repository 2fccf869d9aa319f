"""Bridges: a socket that is listened on, and where each of its connections is led to.

An end is written `tcp://HOST:PORT` (the guest's own network; IPv6 in brackets), `session://NAME:PORT` (the loopback of a session),
`unix:///PATH`, `vsock://CID:PORT`, or, to listen, `vsock://:PORT`. `str` of an end is its URI again.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from coworkd.model.errors import InvalidParams
from coworkd.model.names import parse_session_name

BridgeState = Literal["listening", "waiting", "closed"]
BridgeOrigin = Literal["config", "host"]
UNIX_PATH_BYTES = 107
"""sun_path has 108, the last of them NUL (unix(7))."""
ANY_CID = 0xFFFF_FFFF

_URI = re.compile(r"(?P<kind>tcp|session|unix|vsock)://(?P<rest>.+)\Z", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,10}\Z")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
FORMS = "tcp://HOST:PORT, session://NAME:PORT, unix:///PATH or vsock://CID:PORT"


class TcpEnd(Struct, frozen=True, kw_only=True):
    """A port in the guest's own network namespace. `host` is an address, or a name to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


class SessionEnd(Struct, frozen=True, kw_only=True):
    """A port on the loopback of a session."""

    session: str
    port: int

    def __str__(self) -> str:
        return f"session://{self.session}:{self.port}"


class UnixEnd(Struct, frozen=True, kw_only=True):
    """A unix stream socket of the guest's file system."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


class VsockEnd(Struct, frozen=True, kw_only=True):
    """A vsock port; `cid` None is every CID of this guest, to listen on."""

    cid: int | None
    port: int

    def __str__(self) -> str:
        return f"vsock://{'' if self.cid is None else self.cid}:{self.port}"


BridgeEnd = TcpEnd | SessionEnd | UnixEnd | VsockEnd


class BridgeSpec(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    name: str
    listen: BridgeEnd
    connect: BridgeEnd


class BridgeInfo(Struct, frozen=True, kw_only=True):
    """A bridge as the host sees it. Counts are since it was opened; `sent_bytes` went from the listening side to the other."""

    name: str
    listen: str
    connect: str
    origin: BridgeOrigin
    state: BridgeState
    """`waiting`: it cannot listen now, and tries again."""
    connections: int
    connections_total: int
    failed_total: int
    """Connections that could not be led on."""
    sent_bytes: int
    received_bytes: int
    opened_at: float
    last_error: str | None = None
    last_error_at: float | None = None


def parse_bridge(fields: Mapping[str, str]) -> BridgeSpec:
    """`{name, listen, connect}` as a spec, or raise `InvalidParams` with `details.key`."""
    name = fields["name"]
    if not _NAME.match(name):
        raise InvalidParams(
            f"bridge name {name!r} is not usable: 1 to 64 characters of a-z, 0-9, '.', '_' and '-', a letter or digit first",
            key="name",
        )
    return BridgeSpec(
        name=name,
        listen=parse_listen_end(fields["listen"]),
        connect=parse_connect_end(fields["connect"]),
    )


def parse_listen_end(uri: str) -> BridgeEnd:
    """An end to listen on. Raises `InvalidParams`."""
    end = _parse_end(uri, "listen")
    if isinstance(end, TcpEnd) and not _is_address(end.host):
        raise InvalidParams(
            f"{uri!r} cannot be listened on: write an address of this guest, such as 127.0.0.1, not a name",
            key="listen",
        )
    if isinstance(end, VsockEnd) and end.cid is not None:
        raise InvalidParams(f"{uri!r} cannot be listened on: write vsock://:{end.port}", key="listen")
    return end


def parse_connect_end(uri: str) -> BridgeEnd:
    """An end to connect to. Raises `InvalidParams`."""
    end = _parse_end(uri, "connect")
    if isinstance(end, VsockEnd) and end.cid is None:
        raise InvalidParams(f"{uri!r} names nobody: write vsock://CID:{end.port}; the host is CID 2", key="connect")
    return end


def _parse_end(uri: str, key: str) -> BridgeEnd:
    match = _URI.match(uri)
    if match is None or "\0" in uri:
        raise InvalidParams(f"{uri!r} is no end of a bridge: {FORMS}", key=key)
    rest = match["rest"]
    if match["kind"] == "unix":
        return UnixEnd(path=_parse_path(rest, uri, key))
    host, colon, port = rest.rpartition(":")
    highest = ANY_CID - 1 if match["kind"] == "vsock" else 65_535
    if not colon or not _PORT.match(port) or not 0 < int(port) <= highest:
        raise InvalidParams(f"{uri!r} needs a port of 1 to {highest} at its end", key=key)
    if match["kind"] == "session":
        return SessionEnd(session=parse_session_name(host), port=int(port))
    if match["kind"] == "vsock":
        return VsockEnd(cid=_parse_cid(host, uri, key), port=int(port))
    return TcpEnd(host=_parse_host(host, uri, key), port=int(port))


def _parse_path(path: str, uri: str, key: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or not parts[-1] or {".", ".."} & {*parts}:
        raise InvalidParams(f"{uri!r} needs an absolute path without '.' and '..', as in unix:///run/x.sock", key=key)
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise InvalidParams(f"{uri!r} has a path over {UNIX_PATH_BYTES} bytes, more than unix(7) takes", key=key)
    return path


def _parse_cid(text: str, uri: str, key: str) -> int | None:
    if not text:
        return None
    if not _PORT.match(text) or int(text) >= ANY_CID:
        raise InvalidParams(f"{uri!r} has no CID that can be: the host is vsock://2:PORT", key=key)
    return int(text)


def _parse_host(text: str, uri: str, key: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        if ":" in inner and _is_address(inner):
            return str(ipaddress.ip_address(inner))
    elif ":" not in text and (_is_address(text) or (_HOST.match(text) and not _like_address(text))):
        return text
    raise InvalidParams(f"{uri!r} has no host that can be: an address (IPv6 in brackets) or a name", key=key)


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and ipaddress.ip_address(text) is not None
    except ValueError:
        return False


def _like_address(text: str) -> bool:
    """Digits and dots that are no dotted quad: resolvers read them as addresses of their own making."""
    return text.rpartition(".")[2].isdigit() or text.lower().startswith("0x")
