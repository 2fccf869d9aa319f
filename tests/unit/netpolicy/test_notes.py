"""`netpolicy.notes`: what is right and does nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.netpolicy.notes import MAX_NOTES, note_settings
from tests.unit.netpolicy.verdicts import settings


def test_what_has_its_effect_is_not_noted() -> None:
    tree = settings(
        network__allowedDomains=["*.Example.com:443", "203.0.113.1", "[2001:DB8:0::1]:1", "xn--a.example"],
        network__deniedDomains=["*", "*:22", "a.example", "10.0.0.1", "localhost"],
        network__deniedDomainReasons={"*:22": "no ssh"},
        network__deniedResolvedAddresses=["10.0.0.0/8"],
        network__strictAllowlist=True,
        network__mitmProxy={"socketPath": "/s", "domains": ["a.example"]},
        network__parentProxy={"http": "http://p:1", "https": "https://p:1", "noProxy": "x"},
        network__allowUnixSockets=[],
        allowPty=False,
        coworkd={"presets": []},
    )
    assert note_settings({**tree, "$schema": "x"}) == []


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            settings(network__refuseOpaqueTunnels=True),
            "network.refuseOpaqueTunnels does nothing here: it is NOT enforced",
        ),
        (settings(network__tlsTerminate={}), "coworkd.inspect"),
        (settings(filesystem__denyRead=["/a"]), "filesystem.denyRead does nothing here"),
        (settings(allowPty=True), "allowPty does nothing here: it is for macOS"),
        (settings(coworked={}), "coworked is no key of sandbox-runtime and does nothing; did you mean 'coworkd'?"),
        (settings(network__denidDomains=[]), "did you mean 'deniedDomains'?"),
        (settings(network__allowedDomains=["127.1"]), "matches nothing, for hosts are compared as '127.0.0.1'"),
        (settings(network__deniedDomains=["a b.example"]), "network.deniedDomains[0]: 'a b.example' matches nothing"),
        (settings(network__deniedDomains=["*.1.2.3.4"]), "nothing below an address"),
        (settings(network__allowedDomains=["localhost:80"]), "'localhost' is never reached"),
        (settings(network__allowedDomains=["[::1]:80"]), "'[::1]:80' is never reached: a loopback address"),
        (settings(network__allowedDomains=["10.0.0.1"]), "coworkd.allow_private is not set"),
        (settings(network__deniedDomainReasons={"a.example": "x"}), "its reason is never told"),
        (settings(network__parentProxy={"http": "ftp://p:1"}), "network.parentProxy.http is no proxy"),
        (
            settings(network__mitmProxy={"socketPath": "/s", "domains": ["A.example", "b c.example"]}),
            "network.mitmProxy.domains[1]: 'b c.example' matches nothing",
        ),
    ],
)
def test_what_does_nothing_is_noted(tree: dict[str, Any], says: str) -> None:
    [note] = note_settings(tree)
    assert says in note


def test_a_private_address_is_not_noted_where_it_is_allowed() -> None:
    assert note_settings(settings(network__allowedDomains=["10.0.0.1"], coworkd={"allow_private": True})) == []


def test_notes_come_to_an_end() -> None:
    notes = note_settings(settings(network__deniedDomains=[f"127.{number}" for number in range(MAX_NOTES + 9)]))
    assert len(notes) == MAX_NOTES + 1
    assert notes[-1].startswith("and more")
