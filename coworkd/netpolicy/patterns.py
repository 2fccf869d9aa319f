"""Patterns: the entries of domain lists, and an index that finds the one that matches a host in O(labels).

Rules (sandbox-runtime 0.0.83; FACTS §6)
- One `:port` is split off first; IPv6 stands in brackets, and its zone is dropped. What has two colons and no brackets is never split.
- `*` is every host, `*.D` every name below D at any depth, never D itself and never an address; anything else is that host.
- A pattern is only lower-cased, an address in brackets canonical. So `127.1` is a valid pattern that matches nothing.
- No port is every port. Of several that match, the first of the list decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from coworkd.netpolicy.hosts import BadHost, canonical_host, is_address

_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


def split_pattern(pattern: str) -> tuple[str, int | None]:
    """Return the lower-cased host part and the port of `pattern`; whole where nothing can be split off."""
    if pattern.startswith("["):
        inner, closed, rest = pattern[1:].partition("]")
        if not closed:
            return pattern.lower(), None
        if rest == "":
            return _unbracketed(inner), None
        port = parse_port(rest[1:]) if rest[0] == ":" else None
        return (pattern.lower(), None) if port is None else (_unbracketed(inner), port)
    host, colon, digits = pattern.rpartition(":")
    if not colon:
        return pattern.lower(), None
    if ":" in host:
        return _unbracketed(pattern), None
    port = parse_port(digits)
    return (pattern.lower(), None) if port is None else (host.lower(), port)


def parse_port(digits: str) -> int | None:
    """1 to 65535 without leading zeros, else None."""
    return int(digits) if _PORT.match(digits) and int(digits) <= 65535 else None


def _unbracketed(inner: str) -> str:
    host = inner.partition("%")[0]
    try:
        return canonical_host(host)
    except BadHost:
        return host.lower()


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
