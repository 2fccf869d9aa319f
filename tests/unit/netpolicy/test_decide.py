"""`netpolicy.decide`: who may reach what, by which rule, and which way."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.model.egress import (
    Allowance,
    EgressLimits,
    EgressSettings,
    Inspection,
    MitmProxy,
    ParentProxy,
    SessionEgress,
)
from coworkd.netpolicy.decide import MATCHES_NOTHING, Rules

NOW = 1000.0


def layer(*allowed: str, source: str = "p.json", **more: Any) -> EgressSettings:
    return EgressSettings(source=source, allowed=allowed, **more)


def rules(*layers: EgressSettings, **more: Any) -> Rules:
    return Rules(SessionEgress(settings=layers, **more))


def allows(decided: Rules, host: str, port: int = 443) -> bool:
    return decided.decide(host, port, now=NOW).allowed


def test_an_allowed_host_is_dialled_by_its_canonical_name_and_its_rule_is_told() -> None:
    verdict = rules(layer("*.Example.com")).decide("API.example.COM.", 443, now=NOW)
    assert (verdict.allowed, verdict.host, verdict.port) == (True, "api.example.com", 443)
    assert verdict.rule == "*.Example.com in p.json"


def test_what_nobody_allows_is_refused_in_the_words_of_sandbox_runtime() -> None:
    verdict = rules(layer("a.example")).decide("b.example", 443, now=NOW)
    assert (verdict.allowed, verdict.rule) == (False, None)
    assert verdict.reason == "host is not on the allow list (p.json)"
    assert verdict.told == "host is not on the allow list"


def test_denied_wins_over_allowed_and_over_allowances() -> None:
    verdict = rules(
        layer("*.example.com", denied=("bad.example.com",)),
        allowances=(Allowance(pattern="bad.example.com", until=NOW + 1),),
    ).decide("bad.example.com", 443, now=NOW)
    assert (verdict.allowed, verdict.rule) == (False, "bad.example.com in p.json")
    assert verdict.reason == "host is on the deny list (bad.example.com in p.json)"


def test_a_reason_is_told_as_it_was_written_for_the_entry_that_denied() -> None:
    decided = rules(
        layer("github.example", denied=("github.example:22", "*:22"), denied_reasons={"github.example:22": "use https"})
    )
    assert decided.decide("github.example", 22, now=NOW).reason == "use https"
    assert decided.decide("other.example", 22, now=NOW).reason == "host is on the deny list (*:22 in p.json)"
    assert allows(decided, "github.example")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    assert not allows(rules(layer("a.example")), "a.example", port)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nb", "fe80::1%x.example.com", "a" * 300, "\ud800"])
def test_what_is_no_host_is_refused_in_words_that_can_be_logged(host: str) -> None:
    verdict = rules(layer("*.example.com")).decide(host, 443, now=NOW)
    assert not verdict.allowed
    assert verdict.reason.startswith("malformed host: ")
    assert verdict.host.isascii()
    assert verdict.host.isprintable()


def test_every_layer_must_allow() -> None:
    decided = rules(layer("*.example.com"), layer("a.example.com", "b.other.example", source="request"))
    verdict = decided.decide("a.example.com", 443, now=NOW)
    assert verdict.rule == "*.example.com in p.json; a.example.com in request"
    assert not allows(decided, "b.example.com")
    assert not allows(decided, "b.other.example")


def test_any_layer_may_deny() -> None:
    assert not allows(rules(layer("a.example"), layer("a.example", denied=("*",))), "a.example")


def test_no_layer_allows_nothing() -> None:
    assert not allows(rules(), "a.example")
    assert not allows(rules(allowances=(Allowance(pattern="a.example", until=NOW + 1),)), "a.example")


def test_an_allowance_lifts_every_allowlist_until_its_moment() -> None:
    decided = rules(layer(), layer(source="request"), allowances=(Allowance(pattern="*.a.example:443", until=NOW),))
    assert decided.decide("x.a.example", 443, now=NOW - 1).rule == "*.a.example:443, allowed for a time"
    assert decided.decide("x.a.example", 443, now=NOW - 1).until == NOW
    assert not decided.decide("x.a.example", 443, now=NOW).allowed
    assert not decided.decide("x.a.example", 80, now=NOW - 1).allowed


def test_an_allowance_does_not_lift_a_strict_allowlist() -> None:
    allowance = (Allowance(pattern="*.example", until=NOW + 1),)
    decided = rules(layer("a.example", strict=True), layer(source="request"), allowances=allowance)
    assert decided.decide("a.example", 443, now=NOW).rule == "*.example, allowed for a time; a.example in p.json"
    assert not allows(decided, "b.example")


def test_a_preset_allows_what_it_became_here() -> None:
    decided = rules(
        layer(presets=("python", "node"), preset_hosts={"python": ("index.example:8080",), "rust": ("r.example",)})
    )
    assert decided.decide("index.example", 8080, now=NOW).rule == "index.example:8080 (preset python) in p.json"
    assert not allows(decided, "index.example", 443)
    assert not allows(decided, "r.example"), "a preset that is not named allows nothing"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "::ffff:7f00:1", "[::ffff:127.0.0.1]"]
)
def test_an_address_is_denied_however_it_is_spelled(host: str) -> None:
    assert not allows(rules(layer("127.0.0.1", denied=("127.0.0.1",))), host)
    assert allows(rules(layer("127.0.0.1")), host)


def test_limits_are_those_of_the_session() -> None:
    assert rules(layer(), limits=EgressLimits(connections=3)).limits.connections == 3


def inspecting(*domains: str, tokens: tuple[str, ...] = ()) -> EgressSettings:
    return layer("*.example.com", inspect=Inspection(domains=domains, token_sha256=tokens))


def test_only_named_domains_are_inspected() -> None:
    decided = rules(inspecting("*.example.com", tokens=("ab",)))
    assert decided.inspects("a.example.com") == Inspection(domains=("*.example.com",), token_sha256=("ab",))
    assert decided.inspects("example.com") is None
    assert rules(layer()).inspects("a.example.com") is None


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((), (), ()),
        (("a",), (), ("a",)),
        ((), ("b",), ("b",)),
        (("a", "b"), ("b", "c"), ("b",)),
        (("a",), ("b",), (MATCHES_NOTHING,)),
    ],
)
def test_a_token_is_approved_by_every_layer_that_asks_for_one(
    first: tuple[str, ...], second: tuple[str, ...], both: tuple[str, ...]
) -> None:
    found = rules(inspecting("*.example.com", tokens=first), inspecting("a.example.com", tokens=second)).inspects(
        "a.example.com"
    )
    assert found is not None
    assert found.token_sha256 == both


PARENT = ParentProxy(http="http://u:p@web.example:1", https="socks5h://tls.example:2", no_proxy="near.example")


@pytest.mark.parametrize(
    ("host", "tunnel", "route"),
    [
        ("far.example", True, "socks5h://tls.example:2"),
        ("far.example", False, "http://u:p@web.example:1"),
        ("x.near.example", True, "direct"),
        ("127.0.0.1", False, "direct"),
    ],
)
def test_the_parent_of_the_profile_takes_what_is_not_near(host: str, tunnel: bool, route: str) -> None:
    assert rules(layer(parent=PARENT)).route(host, 443, tunnel=tunnel) == route


@pytest.mark.parametrize(
    ("parent", "tunnel", "route"),
    [
        (ParentProxy(http="http://h:1"), True, "http://h:1"),
        (ParentProxy(https="http://h:1"), True, "http://h:1"),
        (ParentProxy(https="http://h:1"), False, "direct"),
        (ParentProxy(http="ftp://h:1"), False, "ftp://h:1"),
        (ParentProxy(http="http://h:1", https="ftp://h:1"), True, "ftp://h:1"),
        (ParentProxy(), True, "direct"),
    ],
)
def test_one_proxy_stands_in_for_the_other_and_an_unusable_one_is_no_way_around_it(
    parent: ParentProxy, tunnel: bool, route: str
) -> None:
    assert rules(layer(parent=parent)).route("far.example", 443, tunnel=tunnel) == route


@pytest.mark.parametrize("upstream", ["host", "http://up.example:3128"])
def test_the_upstream_of_the_session_comes_before_any_parent(upstream: str) -> None:
    decided = rules(layer(parent=PARENT), upstream=upstream)
    assert decided.route("near.example", 443, tunnel=True) == upstream


def test_a_request_names_no_way_out() -> None:
    mitm = MitmProxy(socket_path="/run/m.sock", domains=("a.example",))
    decided = rules(layer("a.example"), layer("a.example", parent=PARENT, mitm=mitm, source="request"))
    assert decided.route("a.example", 443, tunnel=True) == "direct"
    assert decided.mitm_for("a.example") is None


def test_the_proxy_on_a_socket_takes_its_domains() -> None:
    mitm = MitmProxy(socket_path="/run/m.sock", domains=("*.a.example",))
    decided = rules(layer(mitm=mitm))
    assert decided.mitm_for("x.a.example") is mitm
    assert decided.mitm_for("a.example") is None
