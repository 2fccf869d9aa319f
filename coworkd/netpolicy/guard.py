"""Guard: whether an address may be dialled, after the name was allowed and resolved.

Whoever controls the DNS of an allowed name decides what it resolves to. So every address is judged, and the one that was
judged is the one to dial; an IP address that a client asks for is judged in the same way.

Rules
- Never: loopback, unspecified, link-local, site-local, multicast, broadcast, reserved, metadata addresses of clouds, our own.
- Never: what any layer lists in `deniedResolvedAddresses`, or as an address in `deniedDomains` (there with its port).
- Private ranges only where the profile says `coworkd.allow_private`. Documentation ranges are like public ones.
- An IPv6 address that carries an IPv4 one must pass as both; IPv4-mapped is IPv4.
- The answer names the class and never the address: a session need not learn what a name of the inside resolves to.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; sandbox-runtime 0.0.83; the clouds' documents of their metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

from coworkd.model.egress import SessionEgress
from coworkd.netpolicy.patterns import PatternIndex
from coworkd.netpolicy.ranges import AddressSet, IPAddress, carried_ipv4, parse_address

METADATA = AddressSet(
    (
        "169.254.169.254",
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host agent
        "192.0.0.192",  # Oracle
        "fd00:ec2::/32",  # Amazon: metadata, DNS, time, pod identity
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
        "fd00:a9fe:a9fe::1",  # Akamai
        "fd00:100::100:200",  # Alibaba
    )
)
NEVER = (
    ("a cloud metadata address", METADATA),
    ("a loopback address", AddressSet(("127.0.0.0/8", "::1"))),
    ("an unspecified address", AddressSet(("0.0.0.0/8", "::"))),
    ("a link-local address", AddressSet(("169.254.0.0/16", "fe80::/10"))),
    ("a site-local address", AddressSet(("fec0::/10",))),
    ("a multicast address", AddressSet(("224.0.0.0/4", "ff00::/8"))),
    ("the broadcast address", AddressSet(("255.255.255.255",))),
    ("a reserved address", AddressSet(("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4"))),
)
PRIVATE = AddressSet(("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7"))
GLOBAL_IPV6 = AddressSet(("2000::/3",))
RESERVED_IPV6 = AddressSet(("2001::/23",))
"""Within 2000::/3: protocol assignments, none of which is a server's; Teredo is among them and judged by what it carries."""


class Guard:
    """What `judge_address` says for one session, indexed once. Never changes."""

    __slots__ = ("_allow_private", "_denied", "_listed")

    def __init__(self, session: SessionEgress) -> None:
        self._allow_private = bool(session.settings) and session.settings[0].allow_private
        self._listed = AddressSet(entry for settings in session.settings for entry in settings.denied_addresses)
        self._denied = PatternIndex(pattern for settings in session.settings for pattern in settings.denied)

    def judge(self, address: str, *, is_own: bool, port: int | None = None) -> str | None:
        """None where `address` may be dialled, else why not.

        `is_own` is whether it is one of this machine's. Without `port` a denied address counts whatever its port.
        """
        parsed = parse_address(address)
        if parsed is None:
            return "resolved to an unparsable address"
        carried = carried_ipv4(parsed)
        for one in (parsed, *carried):
            if self._denied.find_address(str(one), port) is not None:
                return "resolved to a deny-listed address"
            if one in self._listed:
                return "resolved to a listed address"
        why = _special(parsed, carried, allow_private=self._allow_private)
        if why is None and is_own:
            why = "one of this guest's own addresses"
        return None if why is None else f"resolved to {why}"


def judge_address(address: str, *, settings: SessionEgress, is_own: bool, port: int | None = None) -> str | None:
    """`Guard.judge` for once; where many addresses are judged, keep the `Guard`."""
    return Guard(settings).judge(address, is_own=is_own, port=port)


def judge_literal(address: str, *, allow_private: bool) -> str | None:
    """What kind of address `address` is, where no session may reach such a one whatever else is allowed."""
    parsed = parse_address(address)
    return None if parsed is None else _special(parsed, carried_ipv4(parsed), allow_private=allow_private)


def _special(parsed: IPAddress, carried: Sequence[IPAddress], *, allow_private: bool) -> str | None:
    every = (parsed, *carried)
    for why, addresses in NEVER:
        if any(one in addresses for one in every):
            return why
    if any(one in PRIVATE for one in every):
        return None if allow_private else "a private address, and coworkd.allow_private is not set"
    if parsed.version == 6 and not carried and (parsed not in GLOBAL_IPV6 or parsed in RESERVED_IPV6):
        return "a reserved address"
    return None
