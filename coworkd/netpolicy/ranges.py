"""Ranges: sets of IP addresses, and the IPv4 addresses that IPv6 ones carry.

Rules (sandbox-runtime 0.0.83)
- A range is an address or CIDR, IPv6 without brackets; host bits may be set; a zone is dropped.
- IPv4-mapped IPv6 is IPv4, in ranges (`::ffff:10.0.0.0/104` is `10.0.0.0/8`) and in addresses alike.

Sources: RFC 4291, RFC 6052 2.2 (NAT64 layouts), RFC 8215 (64:ff9b:1::/48), RFC 3056 (6to4), RFC 4380 4 (Teredo), RFC 2765 (translated).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_PREFIX = re.compile(r"[0-9]{1,3}\Z")


def parse_address(text: str) -> IPAddress | None:
    """The address in `text`, IPv4 where it is mapped; None for anything else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def parse_range(text: str) -> IPNetwork | None:
    """The range in `text`, IPv4 where it is mapped; None for anything else."""
    written, slash, digits = text.partition("/")
    address = parse_address(written)
    if address is None:
        return None
    length = int(digits) if _PREFIX.match(digits) else (-1 if slash else address.max_prefixlen)
    if slash and address.version == 4 and ":" in written:
        length -= 96
    if not 0 <= length <= address.max_prefixlen:
        return None
    if address.version == 4:
        return ipaddress.IPv4Network((int(address), length), strict=False)
    return ipaddress.IPv6Network((int(address), length), strict=False)


def carried_ipv4(address: IPAddress) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that a network may deliver `address` to: of every form that is meant for that, all readings."""
    if address.version == 4:
        return []
    bits = int(address)
    found: list[int] = []
    if bits >> 32 in (0, 0xFFFF_0000) or bits >> 32 == 0x64_FF9B << 64:  # compatible, translated, NAT64
        found.append(bits)
    elif bits >> 112 == 0x2002:  # 6to4
        found.append(bits >> 80)
    elif bits >> 96 == 0x2001_0000:  # Teredo: its server, and the client, which is written inverted
        found += [bits >> 64, ~bits]
    elif bits >> 80 == 0x64_FF9B_0001:
        found += _local_nat64(bits)
    return [ipaddress.IPv4Address(carried & 0xFFFF_FFFF) for carried in found]


def _local_nat64(bits: int) -> list[int]:
    """Prefixes of 48, 56, 64 or 96 bits may be cut from 64:ff9b:1::/48, and the address does not tell; the rest is zero."""
    if bits & 0xFFFF_FFFF:
        return [bits] if bits & 0xFF_FFFF else [bits, bits >> 24]
    at_48 = (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF
    at_56 = (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFF_FFFF
    return [at_48, at_56, bits >> 24]


class AddressSet:
    """Ranges, built once. What is no range is not in it: settings are checked when they are read."""

    __slots__ = ("_spans",)

    def __init__(self, ranges: Iterable[str]) -> None:
        found = dict.fromkeys(parse_range(text) for text in ranges)
        self._spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in found:
            if network is not None:
                self._spans[network.version].append((int(network[0]), int(network[-1])))

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        return any(first <= number <= last for first, last in self._spans[address.version])
