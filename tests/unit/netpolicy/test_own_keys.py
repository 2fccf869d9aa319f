"""`netpolicy.own_keys`: our own keys, strict."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.model.egress import EgressLimits, Inspection
from coworkd.netpolicy.own_keys import OWN, OwnKeys, read_own_keys
from coworkd.netpolicy.schema import Findings


def found(tree: object) -> list[tuple[str, str, str | None]]:
    findings = Findings("s.json")
    OWN(tree, findings.root)
    return [(finding.key, finding.message, finding.nearest) for finding in findings.found]


def test_what_is_not_given_is_as_without() -> None:
    assert found({}) == []
    assert read_own_keys({}) == OwnKeys()


def test_every_key_is_read() -> None:
    tree = {
        "presets": ["python", "rust"],
        "limits": {"connections": 5, "rate_per_s": 2, "burst": 3, "connect_s": 1.5, "head_s": 4, "idle_s": 60},
        "allow_private": True,
        "inspect": {"domains": ["*.a.example"], "token_sha256": ["AB" * 32]},
    }
    assert found(tree) == []
    assert read_own_keys(tree) == OwnKeys(
        presets=("python", "rust"),
        limits=EgressLimits(connections=5, rate_per_s=2.0, burst=3, connect_s=1.5, head_s=4.0, idle_s=60.0),
        allow_private=True,
        inspect=Inspection(domains=("*.a.example",), token_sha256=("ab" * 32,)),
    )


@pytest.mark.parametrize(
    ("tree", "key", "says", "nearest"),
    [
        ([], "", "wants an object", None),
        ({"preset": []}, "preset", "is not a key", "presets"),
        ({"presets": ["pyton"]}, "presets[0]", "not one of", "python"),
        ({"presets": ["rust", "rust"]}, "presets[1]", "twice", None),
        ({"limits": {"connection": 1}}, "limits.connection", "is not a key", "connections"),
        ({"limits": {"connections": 0}}, "limits.connections", "too small", None),
        ({"limits": {"idle_s": 0}}, "limits.idle_s", "too small", None),
        ({"limits": {"burst": 1.5}}, "limits.burst", "whole number", None),
        ({"allow_private": 1}, "allow_private", "true or false", None),
        ({"inspect": {}}, "inspect.domains", "is missing", None),
        ({"inspect": {"domains": []}}, "inspect.domains", "not empty", None),
        ({"inspect": {"domains": ["a.example:443"]}}, "inspect.domains[0]", "':'", None),
        (
            {"inspect": {"domains": ["a.b", "b\u00fccher.example"]}},
            "inspect.domains[1]",
            "no host has such a name",
            None,
        ),
        ({"inspect": {"domains": ["127.1"]}}, "inspect.domains[0]", "compared as '127.0.0.1'", None),
        ({"inspect": {"domains": ["a.b"], "token_sha256": []}}, "inspect.token_sha256", "at least one token", None),
        ({"inspect": {"domains": ["a.b"], "token_sha256": ["x"]}}, "inspect.token_sha256[0]", "64 hex", None),
        ({"upstream": "host"}, "upstream", "is not a key", None),
    ],
)
def test_mistakes_are_told_with_the_nearest_there_is(tree: Any, key: str, says: str, nearest: str | None) -> None:
    [told] = found(tree)
    assert (told[0], told[2]) == (key, nearest)
    assert says in told[1]
