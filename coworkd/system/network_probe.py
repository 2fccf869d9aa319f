"""`python -m coworkd.system.network_probe`: the devices and default routes of this network namespace, as JSON, once.

A program of its own, because pyroute2 takes 13 MiB and a tenth of a second: it must not become part of anything that stays
(a contract sees to that, and nobody imports this module). Prints one `model.network.NetworkFacts`.

Source: rtnetlink(7).
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from coworkd.model.network import DefaultRoute, NetworkDevice, NetworkFacts

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
RTN_UNICAST = 1
RT_SCOPE_LINK = 253


def collect(netlink: Any) -> NetworkFacts:
    """What an open `pyroute2.IPRoute` tells."""
    names = {
        link["index"]: str(link.get_attr("IFLA_IFNAME"))
        for link in netlink.get_links()
        if link["flags"] & IFF_UP and not link["flags"] & IFF_LOOPBACK
    }
    addresses: dict[int, list[str]] = {index: [] for index in names}
    for address in netlink.get_addr():
        if address["index"] in names and address["scope"] < RT_SCOPE_LINK:
            # Of a point-to-point device IFA_ADDRESS is the peer's.
            own = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
            addresses[address["index"]].append(f"{own}/{address['prefixlen']}")
    routes = [
        DefaultRoute(device=names[device], gateway=str(route.get_attr("RTA_GATEWAY") or ""))
        for route in netlink.get_default_routes()
        if (device := route.get_attr("RTA_OIF")) in names and route["type"] == RTN_UNICAST
    ]
    devices = [NetworkDevice(name=name, addresses=tuple(addresses[index])) for index, name in sorted(names.items())]
    return NetworkFacts(devices=tuple(devices), routes=tuple(routes))


def main() -> int:
    """Print the facts; fails by an exception, with its reason on standard error."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        facts = collect(netlink)
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
