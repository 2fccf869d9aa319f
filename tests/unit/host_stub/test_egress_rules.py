"""The second wall: what a guest may reach through this host, whatever it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from host_stub.egress_rules import EgressOptions, EgressRules
from host_stub.words import Trouble


def rules(own: tuple[str, ...] = (), **options: Any) -> EgressRules:
    return EgressRules(EgressOptions(**options), is_own=lambda address: address in own)


def settings(path: Path, **network: Any) -> Path:
    whole = {"allowedDomains": [], "deniedDomains": [], **network}
    tree = {"network": whole, "filesystem": {"denyRead": [], "allowWrite": [], "denyWrite": []}}
    path.write_text(json.dumps(tree))
    return path


def test_without_a_list_any_name_may_be_asked_for() -> None:
    decision = rules().decide("Files.Example.ORG", 443, now=0.0)
    assert (decision.refusal, decision.host, decision.route) == (None, "files.example.org", "direct")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "0x7f000001", "localhost", "a.localhost", "169.254.169.254", "::1", "::ffff:127.0.0.1", "10.0.0.1"],
)
def test_what_nobody_reaches_from_a_guest_is_refused_as_it_is_asked_for(host: str) -> None:
    refusal = rules().decide(host, 80, now=0.0).refusal
    assert refusal is not None
    assert refusal.kind == "address"


def test_an_address_of_this_host_is_refused() -> None:
    assert "this host's own" in (rules(own=("198.51.100.7",)).judge("198.51.100.7", 80) or "")


def test_an_address_that_cannot_be_judged_is_refused() -> None:
    def ask(_: str) -> bool:
        raise OSError(24, "Too many open files")

    made = EgressRules(EgressOptions(), is_own=ask)
    assert "could not be judged" in (made.judge("198.51.100.7", 80) or "")


def test_private_ranges_are_reached_by_option_only() -> None:
    assert rules().judge("10.1.2.3", 80) is not None
    assert rules(allow_private=True).judge("10.1.2.3", 80) is None
    assert rules(allow_private=True).judge("127.0.0.1", 80) is not None


def test_single_addresses_can_be_excepted() -> None:
    made = rules(own=("127.0.0.1", "127.0.0.2"), allow_addresses=("127.0.0.1",))
    assert made.decide("127.0.0.1", 80, now=0.0).refusal is None
    assert made.decide("127.0.0.2", 80, now=0.0).refusal is not None


def test_a_list_bounds_what_is_reached(tmp_path: Path) -> None:
    file = settings(tmp_path / "s.json", allowedDomains=["*.example.org"], deniedDomains=["bad.example.org"])
    made = rules(settings=file)
    assert made.decide("a.example.org", 443, now=0.0).refusal is None
    for host in ("example.com", "bad.example.org"):
        refusal = made.decide(host, 443, now=0.0).refusal
        assert refusal is not None
        assert refusal.kind == "allowlist"


def test_a_list_lifts_no_address(tmp_path: Path) -> None:
    file = settings(tmp_path / "s.json", allowedDomains=["127.0.0.1", "localhost"])
    made = rules(settings=file)
    assert made.decide("127.0.0.1", 80, now=0.0).refusal is not None
    assert made.decide("localhost", 80, now=0.0).refusal is not None


def test_a_parent_takes_every_connection_and_literals_are_judged_all_the_same() -> None:
    made = rules(parent="http://proxy.example.org:3128")
    assert made.decide("a.example.org", 443, now=0.0).route == "http://proxy.example.org:3128"
    assert made.decide("169.254.169.254", 80, now=0.0).refusal is not None


@pytest.mark.parametrize("host", ["", "a b", "a/b", "x" * 300, "127.0.0.999", "fe80::1%eth0"])
def test_what_is_no_host_is_refused(host: str) -> None:
    assert rules().decide(host, 443, now=0.0).refusal is not None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"settings": Path("/nowhere/at/all")}, "bad_egress_settings"),
        ({"parent": "https://proxy.example.org"}, "bad_parent_proxy"),
        ({"parent": "::"}, "bad_parent_proxy"),
        ({"allow_addresses": ("nonsense",)}, "bad_address"),
    ],
)
def test_options_that_are_none_let_nothing_out(options: dict[str, Any], code: str) -> None:
    with pytest.raises(Trouble) as caught:
        rules(**options)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "{", '{"network": {}}'])
def test_a_list_with_a_mistake_lets_nothing_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(Trouble) as caught:
        rules(settings=file)
    assert str(file) in caught.value.message


def test_a_list_with_presets_is_refused_for_it_would_allow_nothing(tmp_path: Path) -> None:
    file = settings(tmp_path / "s.json")
    tree = json.loads(file.read_text())
    tree["coworkd"] = {"presets": ["python"]}
    file.write_text(json.dumps(tree))
    with pytest.raises(Trouble, match="presets"):
        rules(settings=file)
