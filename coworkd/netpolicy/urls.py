"""URLs: whether a text is one to a WHATWG parser, and its host as that parser writes it.

Only for settings files: there sandbox-runtime takes what JavaScript's `new URL` takes, and reads odd brackets by it. What a client
asks for goes through `hosts`, which is stricter.

Known to differ: names outside ASCII follow IDNA 2003, and the inside of an `xn--` label is not looked at.

Source: WHATWG URL, "basic URL parser" and "host parsing".
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from coworkd.netpolicy.hosts import BadHost, canonical_ipv4, ends_in_number

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SPECIAL = frozenset({"http", "https", "ws", "wss", "ftp"})
_PORT = re.compile(r"[0-9]*\Z")
_FORBIDDEN_HOST = re.compile(r"[\x00\t\n\r #/:<>?@\[\\\]^|]")
_FORBIDDEN_DOMAIN = re.compile(r"[\x00-\x20#/:<>?@\[\\\]^|%\x7f]")
_DRIVE = re.compile(r"[A-Za-z][:|]\Z")
_TRIMMED = "".join(map(chr, range(0x21)))


def is_url(text: str) -> bool:
    """Whether `new URL(text)` would take it."""
    return _parse(text) is not None


def url_host(text: str) -> str | None:
    """The host of `text` in its canonical spelling, IPv6 in brackets, empty where there is none; None where `text` is no URL."""
    return _parse(text)


def _parse(text: str) -> str | None:
    cleaned = re.sub(r"[\t\n\r]", "", text.strip(_TRIMMED))
    found = _SCHEME.match(cleaned)
    if found is None:
        return None
    scheme, rest = found[1].lower(), cleaned[found.end() :]
    try:
        if scheme in _SPECIAL:
            return _authority(re.split(r"[/\\?#]", rest.lstrip("/\\"), maxsplit=1)[0], special=True)
        if scheme == "file":
            return _file_host(rest)
        if rest.startswith("//"):
            return _authority(re.split(r"[/?#]", rest[2:], maxsplit=1)[0], special=False)
    except BadHost:
        return None
    return ""


def _file_host(rest: str) -> str:
    if rest[:2].replace("\\", "/") != "//":
        return ""
    host = re.split(r"[/\\?#]", rest[2:], maxsplit=1)[0]
    return "" if not host or _DRIVE.match(host) else _special_host(host)


def _authority(authority: str, *, special: bool) -> str:
    _credentials, at, place = authority.rpartition("@")
    host, port = place, ""
    colon = place.find(":", place.find("]") + 1 if place.startswith("[") else 0)
    if colon >= 0:
        host, port = place[:colon], place[colon + 1 :]
    if not host and (special or at or colon >= 0):
        raise BadHost("has no host")
    if not _PORT.match(port) or (port and int(port[-6:]) > 65535) or len(port.lstrip("0")) > 5:
        raise BadHost("has no such port")
    return _special_host(host) if special else _opaque_host(host)


def _special_host(host: str) -> str:
    if host.startswith("["):
        return _bracketed(host)
    domain = unquote(host, errors="replace")
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise BadHost("is no domain") from error
    domain = domain.lower()
    if not domain or _FORBIDDEN_DOMAIN.search(domain):
        raise BadHost("has a character that no domain has")
    labels = domain.removesuffix(".").split(".")
    return canonical_ipv4(labels) if ends_in_number(labels) else domain


def _opaque_host(host: str) -> str:
    if host.startswith("["):
        return _bracketed(host)
    if _FORBIDDEN_HOST.search(host):
        raise BadHost("has a character that no host has")
    return host


def _bracketed(host: str) -> str:
    try:
        if not host.endswith("]") or "%" in host:
            raise ValueError("no IPv6 address in brackets")
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError as error:
        raise BadHost(str(error)) from error
