"""The helper of `network.status` in a network namespace of the test's own, and what says that it must be asked again."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.needs("netns")]

PROBE = f"{sys.executable} -m coworkd.system.network_probe"
ROUTES = f"{sys.executable} -c 'from coworkd.services.network_look import read_routes; print(hash(read_routes()))'"
DEVICES = (
    "ip link add inside type veth peer name outside; ip link set outside up; ip link set inside up;"
    " ip address add 198.51.100.2/24 dev inside; ip address add 2001:db8::2/64 dev inside nodad; "
)


def in_a_namespace(script: str) -> list[str]:
    """The lines that a shell script prints in a fresh network namespace, which ends with it."""
    done = subprocess.run(
        ("unshare", "--net", "sh", "-ec", script),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "1"},
    )
    return done.stdout.splitlines()


def facts(script: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(in_a_namespace(script + PROBE)[-1])
    return told


def test_a_namespace_with_nothing_has_no_device_and_no_route() -> None:
    assert facts("") == {"devices": [], "routes": []}


def test_devices_without_a_default_route_are_no_way_out() -> None:
    told = facts(DEVICES)
    [inside] = [device for device in told["devices"] if device["name"] == "inside"]
    assert sorted(inside["addresses"]) == ["198.51.100.2/24", "2001:db8::2/64"]
    assert told["routes"] == []


def test_default_routes_of_both_families_are_told() -> None:
    told = facts(
        DEVICES + "ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8::1;"
        " ip route add unreachable 203.0.113.0/24; "
    )
    assert sorted(route["gateway"] for route in told["routes"]) == ["198.51.100.1", "2001:db8::1"]
    assert {route["device"] for route in told["routes"]} == {"inside"}


def test_an_unreachable_default_route_is_none() -> None:
    assert facts(DEVICES + "ip route add unreachable default; ")["routes"] == []


def test_the_digest_changes_with_the_routes_of_either_family() -> None:
    seen = in_a_namespace(
        f"{DEVICES}{ROUTES}; {ROUTES}; ip route add default via 198.51.100.1; {ROUTES};"
        f" ip -6 route add default via 2001:db8::1; {ROUTES}"
    )
    assert seen[0] == seen[1]
    assert len({seen[0], seen[2], seen[3]}) == 3
