"""Patterns: the entries of domain lists, and an index that finds the one that matches a host in O(labels).

Rules (sandbox-runtime 0.0.83; FACTS §6)
- One `:port` is split off first; IPv6 stands in brackets, and its zone is dropped. What has two colons and no brackets is never split.
- `*` is every host, `*.D` every name below D at any depth, never D itself and never an address; anything else is that host.
- A pattern is only lower-cased, an address in brackets canonical. So `127.1` is a valid pattern that matches nothing.
- No port is every port. Of several that match, the first of the list decides.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from coworkd.netpolicy.hosts import BadHost, canonical_host, is_address, strip_brackets
from coworkd.netpolicy.ranges import parse_address
from coworkd.netpolicy.urls import url_host

_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
_URL_HOST = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/?#]+)", re.IGNORECASE)

Wrong = tuple[str, "str | None"]
"""A sentence, and the nearest right spelling where one is close."""


def split_pattern(pattern: str) -> tuple[str, int | None]:
    """Return the lower-cased host part and the port of `pattern`; whole where nothing can be split off."""
    host, port = _split(pattern)
    return host.lower(), port


def _split(pattern: str) -> tuple[str, int | None]:
    if pattern.startswith("["):
        inner, closed, rest = pattern[1:].partition("]")
        if closed and not rest:
            return _unbracketed(inner), None
        port = _parse_port(rest[1:]) if rest.startswith(":") else None
        return (pattern, None) if port is None else (_unbracketed(inner), port)
    host, colon, digits = pattern.rpartition(":")
    if ":" in host:
        return _unbracketed(pattern), None
    port = _parse_port(digits) if colon else None
    return (pattern, None) if port is None else (host, port)


def _parse_port(digits: str) -> int | None:
    return int(digits) if _PORT.match(digits) and int(digits) <= 65535 else None


def _unbracketed(inner: str) -> str:
    host = inner.partition("%")[0]
    found = url_host(f"http://[{host}]/" if _is_ipv6(host) else f"http://{host}/")
    if not found:
        return host
    address = parse_address(strip_brackets(found))
    return found.removesuffix(".") if address is None else str(address)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def refuse_domain(entry: str, *, denied: bool) -> Wrong | None:
    """None where `entry` may stand in a domain list, else why not; `denied` is the list in which `*` may stand."""
    if ":" in entry.partition(":")[2] and not entry.startswith("["):
        close = f"[{entry}]" if _is_ipv6(entry) else None
        return _refuse_url(entry) or (f"{entry!r} has more than one ':'; IPv6 addresses stand in brackets", close)
    host, _ = _split(entry)
    return None if host == "*" and denied else _refuse_host(entry, host)


def refuse_domain_name(entry: str) -> Wrong | None:
    """None where `entry` may stand in a list of domains without ports, in which IPv6 addresses have no brackets."""
    return _refuse_host(entry, entry)


def why_never(pattern: str) -> str | None:
    """Why `pattern`, which may stand in a list, matches no host there is; None where there may be one."""
    host, _ = split_pattern(pattern)
    name = host.removeprefix("*.")
    if host == "*":
        return None
    try:
        canonical = canonical_host(name)
    except BadHost:
        return "no host has such a name"
    if host != name and is_address(canonical):
        return "there is nothing below an address"
    return None if canonical == name else f"hosts are compared as {canonical!r}"


def _refuse_host(entry: str, host: str) -> Wrong | None:
    if host == "localhost" or _is_ipv6(host):
        return None
    if "/" in host:
        said = f"{entry!r} has a path or is an address range; ranges stand in network.deniedResolvedAddresses"
        return _refuse_url(entry) or (said, None)
    if ":" in host:
        return f"{entry!r} has a ':' that begins no port from 1 to 65535; IPv6 addresses stand in brackets", None
    domain = host[2:] if host.startswith("*.") else host
    if "*" in domain and host == domain:  # below a '*.' sandbox-runtime lets it pass; it matches nothing
        return f"{entry!r}: a '*' stands only before a domain, as in '*.example.com'", None
    if not domain.strip("."):
        return f"{entry!r} names no host", None
    if "." not in domain.strip("."):
        wide = "reaches too far" if host != domain else "has no dot; besides 'localhost' a host has one"
        return f"{entry!r} {wide}", None
    if domain.startswith(".") or domain.endswith("."):
        return f"{entry!r} begins or ends with a dot", entry.replace(domain, domain.strip("."))
    if host != domain and "" in domain.split("."):
        return f"{entry!r} has an empty label", None
    return None


def _refuse_url(entry: str) -> Wrong | None:
    if "://" not in entry:
        return None
    found = _URL_HOST.match(entry)
    return f"{entry!r} is a URL; a domain list takes hosts", found[1] if found else None


class PatternIndex:
    """Patterns, built once. `find` costs a few look-ups a label, however many patterns there are."""

    __slots__ = ("_below", "_every", "_hosts")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._every: dict[int | None, tuple[int, str]] = {}
        self._hosts: dict[tuple[str, int | None], tuple[int, str]] = {}
        self._below: dict[tuple[str, int | None], tuple[int, str]] = {}
        for place, pattern in enumerate(patterns):
            host, port = split_pattern(pattern)
            if host == "*":
                self._every.setdefault(port, (place, pattern))
            elif host.startswith("*."):
                self._below.setdefault((host[2:], port), (place, pattern))
            else:
                self._hosts.setdefault((host, port), (place, pattern))

    def find(self, host: str, port: int) -> str | None:
        """Return the first pattern of the list that matches the canonical `host`, as it was written."""
        found = [
            self._every.get(None),
            self._every.get(port),
            self._hosts.get((host, None)),
            self._hosts.get((host, port)),
        ]
        if self._below and not is_address(host):
            _, dot, domain = host.partition(".")
            while dot:
                found += (self._below.get((domain, None)), self._below.get((domain, port)))
                _, dot, domain = domain.partition(".")
        matches = [match for match in found if match is not None]
        return min(matches)[1] if matches else None

    def find_address(self, address: str, port: int | None) -> str | None:
        """Return the pattern that is `address` itself; with `port` None one for any port is enough."""
        if port is None:
            return next((found[1] for (host, _), found in self._hosts.items() if host == address), None)
        match = self._hosts.get((address, None)) or self._hosts.get((address, port))
        return None if match is None else match[1]
