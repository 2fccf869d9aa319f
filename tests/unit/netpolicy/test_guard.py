"""`netpolicy.guard`: which addresses nobody is taken to, whatever name led there."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.netpolicy.guard import Guard, judge_address, judge_literal


def session(**settings: Any) -> SessionEgress:
    return SessionEgress(settings=(EgressSettings(source="p.json", **settings),))


def judged(address: str, *, is_own: bool = False, port: int | None = 443, **settings: Any) -> str | None:
    return Guard(session(**settings)).judge(address, is_own=is_own, port=port)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "2606:4700::1", "2001:4860::8"),
        *("192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1"),
        *("64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8", "64:ff9b:1::8.8.8.8"),
    ],
)
def test_public_and_documentation_addresses_are_dialled(address: str) -> None:
    assert judged(address) is None


NEVER = [
    ("127.0.0.1", "a loopback address"),
    ("127.255.255.254", "a loopback address"),
    ("::1", "a loopback address"),
    ("0.0.0.0", "an unspecified address"),
    ("0.1.2.3", "an unspecified address"),
    ("::", "an unspecified address"),
    ("169.254.1.1", "a link-local address"),
    ("fe80::1", "a link-local address"),
    ("fe80::1%eth0", "a link-local address"),
    ("fec0::1", "a site-local address"),
    ("224.0.0.1", "a multicast address"),
    ("ff02::1", "a multicast address"),
    ("255.255.255.255", "the broadcast address"),
    ("240.0.0.1", "a reserved address"),
    ("192.0.0.8", "a reserved address"),
    ("192.88.99.1", "a reserved address"),
    ("100::1", "a reserved address"),
    ("2001:10::1", "a reserved address"),
    ("5f00::1", "a reserved address"),
    ("4000::1", "a reserved address"),
    ("169.254.169.254", "a cloud metadata address"),
    ("100.100.100.200", "a cloud metadata address"),
    ("168.63.129.16", "a cloud metadata address"),
    ("192.0.0.192", "a cloud metadata address"),
    ("fd00:ec2::254", "a cloud metadata address"),
    ("fd00:ec2::23", "a cloud metadata address"),
    ("fd20:ce::254", "a cloud metadata address"),
    ("fd00:c1::a9fe:a9fe", "a cloud metadata address"),
    ("fd00:42::42", "a cloud metadata address"),
    ("fd00:a9fe:a9fe::1", "a cloud metadata address"),
    ("fd00:100::100:200", "a cloud metadata address"),
]


@pytest.mark.parametrize(("address", "why"), NEVER)
def test_special_addresses_are_never_dialled(address: str, why: str) -> None:
    assert judged(address, allow_private=True) == f"resolved to {why}"


@pytest.mark.parametrize(
    "form",
    ["::ffff:{}", "::{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}", "64:ff9b:1:ab::{}"],
)
@pytest.mark.parametrize("carried", ["127.0.0.1", "169.254.169.254", "100.100.100.200", "224.0.0.1"])
def test_an_ipv4_address_within_an_ipv6_one_is_judged(form: str, carried: str) -> None:
    assert judged(form.format(carried), allow_private=True) is not None


@pytest.mark.parametrize(
    "address",
    ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::1", "2001:0:808:808::80ff:fffe", "64:ff9b:1:7f00:0:100::"],
)
def test_tunnels_to_special_addresses_are_never_dialled(address: str) -> None:
    assert judged(address, allow_private=True) is not None


PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "fc00::1", "fd12::1"]


@pytest.mark.parametrize("address", [*PRIVATE, "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::"])
def test_private_addresses_are_dialled_only_where_the_profile_says_so(address: str) -> None:
    assert judged(address) == "resolved to a private address, and coworkd.allow_private is not set"
    assert judged(address, allow_private=True) is None


@pytest.mark.parametrize("address", ["172.15.255.255", "172.32.0.1", "100.128.0.1", "11.0.0.1", "198.20.0.1"])
def test_neighbours_of_private_ranges_are_public(address: str) -> None:
    assert judged(address) is None


def test_a_request_does_not_open_private_ranges() -> None:
    layers = (EgressSettings(source="p"), EgressSettings(source="request", allow_private=True))
    assert Guard(SessionEgress(settings=layers)).judge("10.0.0.1", is_own=False) is not None
    assert Guard(SessionEgress(settings=layers[::-1])).judge("10.0.0.1", is_own=False) is None
    assert Guard(SessionEgress(settings=())).judge("10.0.0.1", is_own=False) is not None


def test_our_own_addresses_are_never_dialled() -> None:
    assert judged("198.51.100.1", is_own=True) == "resolved to one of this guest's own addresses"


@pytest.mark.parametrize("address", ["203.0.113.9", "::ffff:203.0.113.9", "64:ff9b::203.0.113.9", "2001:db8:1::1"])
def test_listed_ranges_are_never_dialled(address: str) -> None:
    listed = ("203.0.113.0/24", "2001:db8:1::/48")
    assert judged(address, denied_addresses=listed) == "resolved to a listed address"
    layers = (EgressSettings(source="p"), EgressSettings(source="request", denied_addresses=listed))
    assert Guard(SessionEgress(settings=layers)).judge(address, is_own=False) is not None


def test_an_address_among_denied_domains_is_denied_by_name_too_at_its_port() -> None:
    denied = ("203.0.113.9:22", "[2001:db8::1]", "*.example.com")
    assert judged("203.0.113.9", port=22, denied=denied) == "resolved to a deny-listed address"
    assert judged("203.0.113.9", port=443, denied=denied) is None
    assert judged("203.0.113.9", port=None, denied=denied) is not None
    assert judged("2001:db8:0:0::1", denied=denied) is not None
    assert judged("64:ff9b::203.0.113.9", port=22, denied=denied) is not None


@pytest.mark.parametrize("address", ["", "example.com", "1.2.3", "1.2.3.4.5", "[::1]", "0x7f.0.0.1"])
def test_what_is_no_address_is_not_dialled(address: str) -> None:
    assert judged(address) == "resolved to an unparsable address"


def test_the_function_says_what_the_guard_says() -> None:
    assert judge_address("10.0.0.1", settings=session(), is_own=False) == judged("10.0.0.1")
    assert judge_address("8.8.8.8", settings=session(denied=("8.8.8.8:1",)), is_own=False, port=2) is None


def test_a_literal_is_judged_without_a_session() -> None:
    assert judge_literal("::1", allow_private=True) == "a loopback address"
    assert judge_literal("10.0.0.1", allow_private=True) is None
    assert judge_literal("a.example", allow_private=False) is None
