from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from coworkd.model.network import DefaultRoute, NetworkDevice, NetworkFacts
from coworkd.system.network_probe import collect


class Message(dict[str, Any]):
    """A netlink message: fields by key, attributes by name."""

    def __init__(self, attributes: dict[str, Any], **fields: Any) -> None:
        super().__init__(fields)
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


class Netlink:
    def get_links(self) -> list[Message]:
        return [
            Message({"IFLA_IFNAME": "lo"}, index=1, flags=0x9),
            Message({"IFLA_IFNAME": "eth0"}, index=2, flags=0x1),
            Message({"IFLA_IFNAME": "eth1"}, index=3, flags=0x0),
            Message({"IFLA_IFNAME": "ppp0"}, index=4, flags=0x1),
        ]

    def get_addr(self) -> list[Message]:
        return [
            Message({"IFA_ADDRESS": "127.0.0.1"}, index=1, prefixlen=8, scope=254),
            Message({"IFA_ADDRESS": "198.51.100.2"}, index=2, prefixlen=24, scope=0),
            Message({"IFA_ADDRESS": "fe80::1"}, index=2, prefixlen=64, scope=253),
            Message({"IFA_ADDRESS": "2001:db8::2"}, index=2, prefixlen=64, scope=0),
            Message({"IFA_ADDRESS": "198.51.100.9"}, index=3, prefixlen=24, scope=0),
            Message({"IFA_ADDRESS": "203.0.113.1", "IFA_LOCAL": "203.0.113.2"}, index=4, prefixlen=32, scope=0),
        ]

    def get_default_routes(self) -> list[Message]:
        return [
            Message({"RTA_OIF": 2, "RTA_GATEWAY": "198.51.100.1"}, type=1),
            Message({"RTA_OIF": 4}, type=1),
            Message({"RTA_OIF": 3, "RTA_GATEWAY": "198.51.100.1"}, type=1),
            Message({"RTA_OIF": 1}, type=7),
            Message({}, type=7),
        ]


def test_devices_that_are_up_and_ways_to_everywhere_are_told() -> None:
    assert collect(Netlink()) == NetworkFacts(
        devices=(
            NetworkDevice(name="eth0", addresses=("198.51.100.2/24", "2001:db8::2/64")),
            NetworkDevice(name="ppp0", addresses=("203.0.113.2/32",)),
        ),
        routes=(DefaultRoute(device="eth0", gateway="198.51.100.1"), DefaultRoute(device="ppp0")),
    )


def test_the_program_prints_json_about_this_machine() -> None:
    argv = (sys.executable, "-I", "-m", "coworkd.system.network_probe")
    done = subprocess.run(argv, capture_output=True, check=True, timeout=120)
    assert set(json.loads(done.stdout)) == {"devices", "routes"}


def test_importing_it_loads_no_netlink_library() -> None:
    code = "import coworkd.system.network_probe, sys; print('pyroute2' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, check=True, text=True, timeout=120)
    assert done.stdout.strip() == "False"
