"""`netpolicy.patterns`: what may stand in a domain list, and which of its entries matches."""

from __future__ import annotations

import pytest

from coworkd.netpolicy.patterns import PatternIndex, refuse_domain, refuse_domain_name, split_pattern
from tests.unit.netpolicy.verdicts import verdicts


@pytest.mark.parametrize(("entry", "valid"), verdicts("allowed_domains"))
def test_allowed_domains_are_valid_where_sandbox_runtime_takes_them(entry: str, valid: bool) -> None:
    assert (refuse_domain(entry, denied=False) is None) is valid


@pytest.mark.parametrize(("entry", "valid"), verdicts("denied_domains"))
def test_denied_domains_are_valid_where_sandbox_runtime_takes_them(entry: str, valid: bool) -> None:
    assert (refuse_domain(entry, denied=True) is None) is valid


@pytest.mark.parametrize(("entry", "valid"), verdicts("domains_without_ports"))
def test_domains_without_ports_are_valid_where_sandbox_runtime_takes_them(entry: str, valid: bool) -> None:
    assert (refuse_domain_name(entry) is None) is valid


@pytest.mark.parametrize(
    ("entry", "close"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("https://api.example.com:443", "api.example.com:443"),
        ("example.com.", "example.com"),
        ("*.example.com.:443", "*.example.com:443"),
        ("::1", "[::1]"),
    ],
)
def test_a_refusal_offers_what_was_meant(entry: str, close: str) -> None:
    wrong = refuse_domain(entry, denied=False)
    assert wrong is not None
    assert wrong[1] == close
    assert refuse_domain(close, denied=False) is None


@pytest.mark.parametrize(("host", "port", "pattern", "matches"), verdicts("matches"))
def test_patterns_match_what_sandbox_runtime_matches(host: str, port: int, pattern: str, matches: bool) -> None:
    assert PatternIndex([pattern]).find(host, port) == (pattern if matches else None)


@pytest.mark.parametrize(
    ("pattern", "split"),
    [
        ("A.Example:443", ("a.example", 443)),
        ("[::1]:443", ("::1", 443)),
        ("[2001:DB8:0::1]", ("2001:db8::1", None)),
        ("[::ffff:1.2.3.4]:1", ("1.2.3.4", 1)),
        ("[fe80::1%eth0]", ("fe80::1", None)),
        ("::1:443", ("::1:443", None)),
        ("a.example:0443", ("a.example:0443", None)),
        ("[::1", ("[::1", None)),
        ("[::1]x", ("[::1]x", None)),
    ],
)
def test_one_port_is_split_off(pattern: str, split: tuple[str, int | None]) -> None:
    assert split_pattern(pattern) == split


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.example.com", "a.example.com"], "*.example.com"),
        (["a.example.com", "*.example.com"], "a.example.com"),
        (["a.example.com:443", "a.example.com"], "a.example.com:443"),
        (["b.example.com", "*", "a.example.com"], "*"),
        (["*.com.example", "*.EXAMPLE.com:443", "*.example.com"], "*.EXAMPLE.com:443"),
    ],
)
def test_the_first_of_the_list_decides_as_it_was_written(patterns: list[str], expected: str) -> None:
    assert PatternIndex(patterns).find("a.example.com", 443) == expected


def test_a_thousand_patterns_are_no_more_work_than_one() -> None:
    class Counted(dict):  # type: ignore[type-arg]
        asked = 0

        def get(self, key: object, default: object = None) -> object:
            Counted.asked += 1
            return super().get(key, default)

    def work(count: int) -> int:
        index = PatternIndex([f"*.d{number}.example" for number in range(count)])
        index._below = Counted(index._below)
        Counted.asked = 0
        assert index.find("x.y.d0.example", 443) == "*.d0.example"
        return Counted.asked

    assert work(1) == work(1000)


@pytest.mark.parametrize(("port", "expected"), [(443, None), (22, "1.2.3.4:22"), (None, "1.2.3.4:22")])
def test_a_listed_address_is_found_with_its_port(port: int | None, expected: str | None) -> None:
    assert PatternIndex(["*", "1.2.3.4:22"]).find_address("1.2.3.4", port) == expected
    assert PatternIndex(["*", "[::1]"]).find_address("::1", port) == "[::1]"
