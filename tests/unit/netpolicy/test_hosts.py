"""`netpolicy.hosts`: one spelling for every way to write a host, and nothing for what is none."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.hosts import BadHost, canonical_host, is_address, is_loopback_name
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("host", "expected"), verdicts("hosts"))
def test_hosts_are_written_as_sandbox_runtime_writes_them(host: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(BadHost):
            canonical_host(host)
    else:
        assert canonical_host(host) == expected
        assert canonical_host(expected) == expected


@pytest.mark.parametrize(
    "host",
    [
        "example.com..",
        ".example.com",
        "a..b",
        ".",
        "..",
        "a" * 64,
        f"{'a' * 64}.example.com",
        "1.2.3.256",
        "1.2.3.4.5",
        "0xg.0x1",
        "1.2.3.08",
    ],
)
def test_names_that_no_resolver_takes_are_refused(host: str) -> None:
    with pytest.raises(BadHost):
        canonical_host(host)


@pytest.mark.parametrize("host", ["xn--a.example", "XN--0.Example", "xn--.example"])
def test_an_idna_label_stays_whatever_is_in_it(host: str) -> None:
    assert canonical_host(host) == host.lower()


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("", "1 to 255"),
        ("a" * 256, "1 to 255"),
        ("exämple.com", "letters, digits"),
        ("a\r\nb.com", r"'a\\r\\nb\.com'"),
        ("fe80::1%eth0", "zone"),
        ("::ffff:1.2.3.4%x.example.com", "zone"),
        ("::g", "not an IPv6 address"),
        ("1.2.3.999", "no IPv4 address"),
    ],
)
def test_a_refusal_says_why_in_printable_ascii(host: str, says: str) -> None:
    with pytest.raises(BadHost, match=says) as caught:
        canonical_host(host)
    assert caught.value.reason.isascii()
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("1.2.3.4", True), ("::1", True), ("a.example", False), ("1.2.3.4.example", False), ("1-2-3-4", False)],
)
def test_addresses_are_told_from_names(host: str, expected: bool) -> None:
    assert is_address(host) is expected


def test_names_of_the_loopback_are_known_by_their_last_label() -> None:
    assert all(map(is_loopback_name, ("localhost", "a.localhost", "a.b.localhost")))
    assert not any(map(is_loopback_name, ("localhost.example", "xlocalhost", "a.xlocalhost")))
