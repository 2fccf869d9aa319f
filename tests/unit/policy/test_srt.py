"""`policy.srt`: valid files pass, and a domain that cannot be meant is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coworkd.policy.srt import check_srt, refuse_domain
from coworkd.settings import BadFile, Finding


def settings(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []},
    }
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            whole[table][key] = value
        else:
            whole[table] = value
    return whole


def findings(tree: object) -> tuple[Finding, ...]:
    with pytest.raises(BadFile) as caught:
        check_srt(json.dumps(tree, indent=1).encode(), file="s.json")
    return caught.value.findings


VALID_DOMAINS = [
    "example.com",
    "example.com:443",
    "*.example.com",
    "*.example.com:65535",
    "localhost",
    "localhost:1",
    "127.0.0.1",
    "[::1]",
    "[::1]:443",
    "[fe80::1%eth0]",
    "[::ffff:1.2.3.4]:1",
    "odd string.with spaces",
    "UPPER.Case",
    "a..b",
]
INVALID_DOMAINS = [
    "",
    ".",
    "*",
    "*:443",
    "*.com",
    "com",
    "example.com.",
    ".example.com",
    "https://example.com",
    "example.com/path",
    "10.0.0.0/8",
    "example.com:0",
    "example.com:070",
    "example.com:65536",
    "example.com:443:443",
    "ex*mple.com",
    "*.*.com",
    "*.a..com",
    "*.",
    "::1",
    "2001:db8::1:443",
    "[::1",
    "[::1]x",
    "[nope]",
    "*example.com",
]


@pytest.mark.parametrize("domain", VALID_DOMAINS)
def test_valid_domains_pass_in_both_lists(domain: str) -> None:
    check_srt(json.dumps(settings(network__allowedDomains=[domain])).encode(), file="f")
    check_srt(json.dumps(settings(network__deniedDomains=[domain])).encode(), file="f")


@pytest.mark.parametrize("domain", INVALID_DOMAINS)
def test_domains_that_cannot_be_meant_are_refused(domain: str) -> None:
    (finding,) = findings(settings(network__allowedDomains=["ok.example", domain]))
    assert finding.key == "network.allowedDomains[1]"
    assert finding.line == 5


@pytest.mark.parametrize("domain", ["*", "*:22"])
def test_a_lone_star_stands_only_in_denied(domain: str) -> None:
    assert refuse_domain(domain, denied=True) is None
    assert refuse_domain(domain, denied=False) is not None


@pytest.mark.parametrize(
    ("domain", "close"),
    [
        ("https://api.example.com/v1", "api.example.com"),
        ("example.com.", "example.com"),
        ("*.example.com.:443", "*.example.com:443"),
        ("::1", "[::1]"),
    ],
)
def test_refusal_offers_what_was_meant(domain: str, close: str) -> None:
    (finding,) = findings(settings(network__allowedDomains=[domain]))
    assert finding.nearest == close
    assert refuse_domain(close, denied=False) is None


def test_unknown_keys_are_passed_over_as_sandbox_runtime_does() -> None:
    tree = settings(network__somethingNew=1, network__strictAllowlist=True)
    assert check_srt(json.dumps({**tree, "other": {}}).encode(), file="f")["other"] == {}


@pytest.mark.parametrize(
    ("tree", "key", "says"),
    [
        ({}, "network", "is missing"),
        (settings(network=[]), "network", "wants an object"),
        (settings(filesystem=None), "filesystem", "wants an object"),
        (settings(network={"allowedDomains": []}), "network.deniedDomains", "is missing"),
        (
            settings(network={"allowedDomain": [], "deniedDomains": []}),
            "network.allowedDomains",
            "is it 'allowedDomain'",
        ),
        (settings(network__allowedDomains="a.b"), "network.allowedDomains", "wants a list"),
        (settings(network__allowedDomains=[1]), "network.allowedDomains[0]", "wants a domain"),
        (settings(network__strictAllowlist=None), "network.strictAllowlist", "true or false"),
        (settings(network__httpProxyPort=0), "network.httpProxyPort", "1 to 65535"),
        (settings(network__httpProxyPort=True), "network.httpProxyPort", "1 to 65535"),
        (settings(network__deniedResolvedAddresses=["10/8x"]), "network.deniedResolvedAddresses[0]", "IP address"),
        (settings(filesystem__denyRead=[""]), "filesystem.denyRead[0]", "not empty"),
        (settings(filesystem__denyWrite=[{"path": "/a"}]), "filesystem.denyWrite[0]", "literal"),
        (
            settings(filesystem__denyWrite=[{"path": "/a", "literal": True, "x": 1}]),
            "filesystem.denyWrite[0]",
            "literal",
        ),
        (settings(filesystem__allowGitConfig=1), "filesystem.allowGitConfig", "true or false"),
    ],
)
def test_wrong_settings_are_told_by_key(tree: object, key: str, says: str) -> None:
    first = findings(tree)[0]
    assert first.key == key
    assert says in first.message


def test_marked_paths_and_ranges_pass() -> None:
    tree = settings(
        filesystem__denyRead=["~/.ssh", {"path": "/a*b", "literal": True}],
        network__deniedResolvedAddresses=["10.0.0.0/8", "fc00::/7", "1.2.3.4"],
        network__httpProxyPort=8080,
    )
    assert check_srt(json.dumps(tree).encode(), file="f") == tree
