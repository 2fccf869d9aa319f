from __future__ import annotations

import pytest

from coworkd.model.egress import EgressLimits, EgressSettings, MitmProxy, ParentProxy
from coworkd.netpolicy.decide import Rules
from coworkd.services.policy_egress import compose_session_egress

PROFILE = EgressSettings(
    source="egress/default.json",
    allowed=("index.example", "*.mirror.example:443"),
    limits=EgressLimits(connections=100, idle_s=60.0),
)


def request(**fields: object) -> EgressSettings:
    return EgressSettings(source="request", **fields)  # type: ignore[arg-type]


def test_without_a_request_the_profile_holds() -> None:
    egress, narrowed = compose_session_egress(PROFILE, "host", None)
    assert (egress.settings, egress.upstream, egress.limits, narrowed) == ((PROFILE,), "host", PROFILE.limits, ())


def test_a_request_only_takes_away() -> None:
    asked = request(allowed=("index.example", "evil.example", "*.mirror.example", "*.mirror.example:80"))
    egress, narrowed = compose_session_egress(PROFILE, "direct", asked)
    rules = Rules(egress)
    assert rules.decide("index.example", 443, now=0.0).allowed
    assert rules.decide("a.mirror.example", 443, now=0.0).allowed
    assert not rules.decide("evil.example", 443, now=0.0).allowed
    assert not rules.decide("a.mirror.example", 80, now=0.0).allowed
    assert [sentence.split()[1:4] for sentence in narrowed] == [
        ["evil.example", "stays", "out:"],
        ["*.mirror.example", "is", "open"],
        ["*.mirror.example:80", "stays", "out:"],
    ]


def test_what_a_request_leaves_out_is_closed() -> None:
    egress, narrowed = compose_session_egress(PROFILE, "direct", request(allowed=("*.mirror.example:443",)))
    assert not Rules(egress).decide("index.example", 443, now=0.0).allowed
    assert narrowed == ()


@pytest.mark.parametrize(
    ("allowed", "denied", "asked", "told"),
    [
        ("a.example", "", "a.example", ""),
        ("a.example", "", "A.example:443", ""),
        ("a.example:443", "", "a.example", "in part"),
        ("a.example:443", "", "a.example:80", "stays out"),
        ("*.example.org", "", "*.example.org", ""),
        ("*.example.org", "", "*.deep.example.org", ""),
        ("*.example.org", "", "a.deep.example.org:1", ""),
        ("*.example.org", "", "example.org", "stays out"),
        ("a.example.org", "", "*.example.org", "in part"),
        ("*.deep.example.org", "", "*.example.org", "in part"),
        ("*.deep.example.org:443", "", "*.example.org:443", "in part"),
        ("*.deep.example.org:443", "", "*.example.org:80", "stays out"),
        ("x.example.org", "", "*.example.org", "in part"),
        ("example.org", "", "*.example.org", "stays out"),
        ("*.example.org", "*.example.org", "a.example.org", "stays out"),
        ("*.example.org", "*", "*.example.org", "stays out"),
        ("*.example.org", "*:80", "*.example.org:80", "stays out"),
        ("198.51.100.2", "", "198.51.100.2", ""),
        ("198.51.100.2", "", "198.51.100.3", "stays out"),
    ],
)
def test_what_is_told_of_a_pattern_is_true(allowed: str, denied: str, asked: str, told: str) -> None:
    profile = EgressSettings(source="p", allowed=(allowed,), denied=(denied,) if denied else ())
    _, narrowed = compose_session_egress(profile, "direct", request(allowed=(asked,)))
    assert [sentence for sentence in narrowed if told and told in sentence] == list(narrowed)
    assert len(narrowed) == bool(told)


def test_bounds_are_the_smaller_of_both_and_what_was_cut_is_told() -> None:
    asked = request(limits=EgressLimits(connections=5000, rate_per_s=1.0))
    egress, narrowed = compose_session_egress(PROFILE, "direct", asked, limits=("connections", "rate_per_s"))
    assert (egress.limits.connections, egress.limits.rate_per_s, egress.limits.idle_s) == (100, 1.0, 60.0)
    assert narrowed == ("egress: coworkd.limits.connections 5000 is narrowed to 100",)


def test_a_bound_the_request_leaves_out_is_the_profiles() -> None:
    wide = EgressSettings(source="p", allowed=("index.example",), limits=EgressLimits(connections=9000))
    egress, narrowed = compose_session_egress(wide, "direct", request(allowed=("index.example",)))
    assert (egress.limits.connections, narrowed) == (9000, ())


def test_ways_out_and_private_ranges_are_the_profiles_to_say() -> None:
    asked = request(
        parent=ParentProxy(http="http://proxy.example:3128"),
        mitm=MitmProxy(socket_path="/x", domains=("index.example",)),
        allow_private=True,
    )
    egress, narrowed = compose_session_egress(PROFILE, "direct", asked)
    rules = Rules(egress)
    assert rules.route("index.example", 443, tunnel=True) == "direct"
    assert rules.mitm_for("index.example") is None
    assert len(narrowed) == 3


def test_sentences_are_bounded() -> None:
    asked = request(allowed=tuple(f"h{number}.example" for number in range(1000)))
    _, narrowed = compose_session_egress(PROFILE, "direct", asked)
    assert len(narrowed) == 101
    assert "900 more" in narrowed[-1]
