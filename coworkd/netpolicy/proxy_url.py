"""Proxy URLs: where a parent proxy is, and who we are to it.

Rules
- `http`, `https`, `socks5` and `socks5h` (both with names resolved by the proxy); `HOST:PORT` without a scheme is `http`, as curl has it.
- User and password are percent-decoded. They never stand in `shown`.

Source: RFC 3986; sandbox-runtime 0.0.83 (which knows http and https alone, and goes direct for the others).
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

from coworkd.netpolicy.hosts import BadHost, canonical_host

ProxyScheme = Literal["http", "https", "socks5h"]
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5h": 1080}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@/?#\\]*)@)?(?P<host>\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]|[^:@/?#\\\[\]]+)(?::(?P<port>[0-9]{0,5}))?(?:[/?#\\].*)?\Z"
)


class ProxyUrl(Struct, frozen=True, kw_only=True):
    """A parent proxy. `socks5h` stands for both spellings."""

    scheme: ProxyScheme
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxy_url(url: str) -> ProxyUrl | None:
    """Take `url` apart; None where it is no proxy that can be used."""
    scheme_match = _SCHEME.match(url)
    scheme = scheme_match[1].lower() if scheme_match is not None else "http"
    scheme = "socks5h" if scheme == "socks5" else scheme
    if scheme not in _DEFAULT_PORTS:
        return None
    authority = _AUTHORITY.match(url[scheme_match.end() :] if scheme_match is not None else url)
    if authority is None:
        return None
    port = int(authority["port"] or _DEFAULT_PORTS[scheme])
    try:
        host = canonical_host(authority["host"])
    except BadHost:
        return None
    if not 1 <= port <= 65535:
        return None
    user, colon, password = (authority["user"] or "").partition(":")
    return ProxyUrl(
        scheme=scheme,  # type: ignore[arg-type]  # one of the keys above
        host=host,
        port=port,
        username=unquote(user) if user or colon else None,
        password=unquote(password) if colon else None,
    )
