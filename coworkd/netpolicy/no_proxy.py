"""NO_PROXY: the hosts that are reached without the parent proxy.

Rules (sandbox-runtime 0.0.83, which follows Go's httpproxy)
- Entries stand between commas: `*` is every host; `D`, `.D` and `*.D` are D and everything below it; an address or CIDR is that.
- A port behind an entry is dropped and not compared; before a port an address is a name like any other. A range that cannot be read
  is passed over.
- `localhost` and loopback never go through a parent.
"""

from __future__ import annotations

import re

from coworkd.netpolicy.hosts import is_address
from coworkd.netpolicy.ranges import AddressSet, parse_address

_BRACKETED = re.compile(r"\[([^\]]+)\](?::[0-9]+)?\Z")
_PORT = re.compile(r":[0-9]+\Z")
LOOPBACK = ("127.0.0.0/8", "::1")


class NoProxy:
    """A NO_PROXY list, read once."""

    __slots__ = ("_addresses", "_every", "_names")

    def __init__(self, listed: str) -> None:
        self._every = False
        self._names: set[str] = set()
        self._addresses = AddressSet((*LOOPBACK, *self._read(listed)))

    def covers(self, host: str) -> bool:
        """Whether the canonical `host` is reached without the parent."""
        if self._every or host == "localhost":
            return True
        address = parse_address(host) if is_address(host) else None
        if address is not None and address in self._addresses:
            return True
        name, dot = host, "."
        while dot:
            if name in self._names:
                return True
            _, dot, name = name.partition(".")
        return False

    def _read(self, listed: str) -> list[str]:
        """Take in the names; return the ranges."""
        ranges = []
        for entry in filter(None, (part.strip() for part in listed.split(","))):
            if entry == "*":
                self._every = True
            elif "/" in entry:
                ranges.append(entry)
            else:
                bracketed = _BRACKETED.match(entry)
                bare = (bracketed[1] if bracketed is not None else entry).lower()
                if parse_address(bare) is not None:
                    ranges.append(bare)
                else:
                    self._names.add(
                        _PORT.sub("", bare.removeprefix("*") if bare.startswith("*.") else bare).removeprefix(".")
                    )
        self._names.discard("")
        return ranges
