"""`netpolicy.ranges`: ranges as sandbox-runtime takes them, and the IPv4 addresses within IPv6 ones."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.ranges import AddressSet, carried_ipv4, parse_address, parse_range
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("text", "valid"), verdicts("ranges"))
def test_ranges_are_valid_where_sandbox_runtime_takes_them(text: str, valid: bool) -> None:
    assert (parse_range(text) is not None) is valid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:1.2.3.4", "1.2.3.4/32"),
        ("fe80::1%eth0", "fe80::1/128"),
        ("::1", "::1/128"),
    ],
)
def test_a_range_has_one_form(text: str, expected: str) -> None:
    assert str(parse_range(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("1.2.3.4", "1.2.3.4"),
        ("01.2.3.4", "None"),
        ("", "None"),
    ],
)
def test_a_mapped_address_is_ipv4(text: str, expected: str) -> None:
    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    ("address", "carried"),
    [
        ("1.2.3.4", []),
        ("2001:db8::1", []),
        ("::1.2.3.4", ["1.2.3.4"]),
        ("::ffff:0:1.2.3.4", ["1.2.3.4"]),
        ("64:ff9b::1.2.3.4", ["1.2.3.4"]),
        ("64:ff9b:0:0:1::1.2.3.4", []),
        ("2002:102:304::1", ["1.2.3.4"]),
        ("2001:0:102:304::f5f4:f3f2", ["1.2.3.4", "10.11.12.13"]),
        ("64:ff9b:1::1.2.3.4", ["1.2.3.4"]),
        ("64:ff9b:1:102:3:400::", ["1.2.3.4", "2.3.4.0", "3.4.0.0"]),
        ("64:ff9b:1:1:2:304::", ["0.1.2.3", "1.2.3.4", "2.3.4.0"]),
        ("64:ff9b:1:0:1:203:400:0", ["4.0.0.0", "1.2.3.4"]),
    ],
)
def test_every_reading_of_a_carried_address_is_told(address: str, carried: list[str]) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert [str(one) for one in carried_ipv4(parsed)] == carried


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::10.0.0.1", False),
        ("fd00::1", True),
        ("::1", False),
    ],
)
def test_a_set_holds_what_its_ranges_hold(address: str, expected: bool) -> None:
    parsed = parse_address(address)
    assert parsed is not None
    assert (parsed in AddressSet(["10.0.0.0/8", "fc00::/7", "no range"])) is expected
