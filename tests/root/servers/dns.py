"""A DNS server for one zone of made-up names, over UDP: as much of RFC 1035 as glibc's resolver asks for.

The names of `ZONE` stand below `example.test`; a name that is not there is NXDOMAIN. Every address that a guard must refuse is really
there in the lab, so that a guard with a hole would reach a server and be seen.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

DOMAIN = "example.test"
SERVER, OTHER, GUEST = "198.51.100.2", "198.51.100.3", "198.51.100.1"
SERVER6, GUEST6 = "2001:db8::2", "2001:db8::1"
RESOLVER = "198.51.100.53"
ANSWER_LIMIT = 20
_A, _AAAA = 1, 28
_NAME_ERROR, _SERVER_FAILURE = 3, 2

GOOD: dict[str, tuple[str, ...]] = {
    "index": (SERVER, SERVER6),
    "other": (OTHER,),
    "four": (SERVER,),
    "six": (SERVER6,),
    "half": (SERVER, "2001:db8::dead"),
    "denied": (SERVER,),
    "unlisted": (SERVER,),
    "temporary": (SERVER,),
    "inspected": (SERVER,),
}
BAD: dict[str, tuple[str, ...]] = {
    "loop": ("127.0.0.1",),
    "loop-far": ("127.8.9.10",),
    "loop6": ("::1",),
    "zero": ("0.0.0.0",),
    "zero6": ("::",),
    "link-local": ("169.254.7.7",),
    "link-local6": ("fe80::1",),
    "metadata": ("169.254.169.254",),
    "metadata6": ("fd00:ec2::254",),
    "metadata-a": ("100.100.100.200",),
    "metadata-b": ("168.63.129.16",),
    "metadata-c": ("192.0.0.192",),
    "own": (GUEST,),
    "own6": (GUEST6,),
    "private": ("10.0.0.2",),
    "private6": ("fd00::2",),
    "shared": ("100.64.0.2",),
    "multicast": ("224.0.0.1",),
    "broadcast": ("255.255.255.255",),
    "mapped": ("::ffff:127.0.0.1",),
    "translated": ("64:ff9b::7f00:1",),
    "six-to-four": ("2002:7f00:1::1",),
    "mixed": (SERVER, "127.0.0.1"),
    "mixed6": (SERVER, "::1"),
}
TURNING: dict[str, tuple[str, ...]] = {"rebind": (SERVER, "127.0.0.1")}
"""One address an answer, by turns: first good, then bad."""
SILENT, BROKEN = "slow", "broken"


class Query(Struct, frozen=True, kw_only=True):
    """One question: `name` in lower case without the last dot, and the bytes it was asked in."""

    id: int
    name: str
    kind: int
    question: bytes


def parse_query(packet: bytes) -> Query:
    """Raises ValueError for what is no plain query of one question."""
    if len(packet) < 17:
        raise ValueError("too short")
    number, flags, questions = struct.unpack_from("!HHH", packet)
    if flags & 0x8000 or questions != 1:
        raise ValueError("no query of one question")
    labels, at = [], 12
    while (size := packet[at]) != 0:
        if size > 63 or at + 1 + size >= len(packet):
            raise ValueError("a bad label")
        labels.append(packet[at + 1 : at + 1 + size].decode("ascii").lower())
        at += 1 + size
    (kind,) = struct.unpack_from("!H", packet, at + 1)
    return Query(id=number, name=".".join(labels), kind=kind, question=packet[12 : at + 5])


def compose_answer(query: Query, addresses: Sequence[str], *, error: int = 0) -> bytes:
    """The answer with those of `addresses` that are of the kind asked for."""
    version = {_A: 4, _AAAA: 6}.get(query.kind)
    records = [
        struct.pack("!HHHIH", 0xC00C, query.kind, 1, 0, len(parsed.packed)) + parsed.packed
        for parsed in map(ipaddress.ip_address, addresses)
        if parsed.version == version
    ][:ANSWER_LIMIT]
    return struct.pack("!HHHHHH", query.id, 0x8580 | error, 1, len(records), 0, 0) + query.question + b"".join(records)


class Zone:
    """What each name is answered with. It remembers where the turning names are."""

    def __init__(self) -> None:
        self._turns: dict[str, Iterator[str]] = {name: itertools.cycle(found) for name, found in TURNING.items()}

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to a packet; None where none is sent."""
        try:
            query = parse_query(packet)
        except (ValueError, UnicodeDecodeError, IndexError, struct.error):
            return None
        label, _, domain = query.name.partition(".")
        if domain != DOMAIN:
            return compose_answer(query, (), error=_NAME_ERROR)
        if label == SILENT:
            return None
        if label == BROKEN:
            return compose_answer(query, (), error=_SERVER_FAILURE)
        if label in self._turns:
            return compose_answer(query, (next(self._turns[label]),) if query.kind == _A else ())
        found = GOOD.get(label) or BAD.get(label)
        return compose_answer(query, found or (), error=0 if found else _NAME_ERROR)


def serve_dns(listener: socket.socket) -> None:
    """Answer for ever."""
    zone = Zone()
    while True:
        packet, peer = listener.recvfrom(4096)
        answer = zone.answer(packet)
        if answer is not None:
            listener.sendto(answer, peer)
