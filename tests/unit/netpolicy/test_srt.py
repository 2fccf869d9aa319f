"""`netpolicy.srt`: files and objects of requests → `EgressSettings`."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from coworkd.model.egress import EgressLimits, EgressSettings, Inspection, MitmProxy, ParentProxy
from coworkd.model.errors import InvalidParams
from coworkd.netpolicy.srt import parse_settings, parse_settings_map
from coworkd.settings import BadFile
from tests.unit.netpolicy.verdicts import settings, verdicts

WHOLE = settings(
    network__allowedDomains=["a.example", "*.b.example:443"],
    network__deniedDomains=["*:22"],
    network__deniedDomainReasons={"*:22": "no ssh"},
    network__deniedResolvedAddresses=["10.0.0.0/8"],
    network__strictAllowlist=True,
    network__parentProxy={"http": "http://u:p@proxy.example:1", "noProxy": "c.example"},
    network__mitmProxy={"socketPath": "/run/m.sock", "domains": ["m.example"]},
    coworkd={
        "presets": ["rust"],
        "limits": {"connections": 7},
        "allow_private": True,
        "inspect": {"domains": ["i.example"]},
    },
)
READ = EgressSettings(
    source="s.json",
    allowed=("a.example", "*.b.example:443"),
    denied=("*:22",),
    denied_reasons={"*:22": "no ssh"},
    denied_addresses=("10.0.0.0/8",),
    strict=True,
    parent=ParentProxy(http="http://u:p@proxy.example:1", no_proxy="c.example"),
    mitm=MitmProxy(socket_path="/run/m.sock", domains=("m.example",)),
    presets=("rust",),
    limits=EgressLimits(connections=7),
    allow_private=True,
    inspect=Inspection(domains=("i.example",)),
)


def test_a_file_is_read_whole() -> None:
    assert parse_settings(json.dumps(WHOLE).encode(), file="s.json") == READ


def test_an_object_of_a_request_is_read_alike() -> None:
    assert parse_settings_map(WHOLE, source="s.json") == READ


def test_the_smallest_file_allows_nothing() -> None:
    assert parse_settings(json.dumps(settings()).encode(), file="f") == EgressSettings(source="f")


@pytest.mark.parametrize("tree", [tree for tree, keys in verdicts("files") if not keys])
def test_every_valid_file_loads_and_can_travel(tree: Any) -> None:
    read = parse_settings(json.dumps(tree).encode(), file="f")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(read), type=EgressSettings) == read
    assert read.allowed == tuple(tree["network"]["allowedDomains"])


@pytest.mark.parametrize("tree", [tree for tree, keys in verdicts("files") if keys])
def test_no_wrong_file_loads(tree: Any) -> None:
    with pytest.raises(BadFile):
        parse_settings(json.dumps(tree).encode(), file="f")
    with pytest.raises(InvalidParams):
        parse_settings_map(tree, source="f")


def test_mistakes_have_file_line_and_key_and_come_together() -> None:
    tree = settings(network__allowedDomains=["ok.example", "*.com"], coworkd={"preset": []})
    with pytest.raises(BadFile) as caught:
        parse_settings(json.dumps(tree, indent=1).encode(), file="s.json")
    assert [(found.file, found.line, found.key) for found in caught.value.findings] == [
        ("s.json", 5, "network.allowedDomains[1]"),
        ("s.json", 15, "coworkd.preset"),
    ]


def test_a_mistake_of_a_request_has_its_key_and_the_nearest_spelling() -> None:
    with pytest.raises(InvalidParams, match=r"request: network\.allowedDomains\[0\]: .*and 1 more") as caught:
        parse_settings_map(
            settings(network__allowedDomains=["https://a.example/x"], coworkd={"allow": 1}), source="request"
        )
    assert caught.value.details == {"key": "network.allowedDomains[0]", "nearest": "a.example"}


@pytest.mark.parametrize("tree", [{1: 2}, {"network": {b"x": 1}}, settings(coworkd={3: 4}), settings(network=None)])
def test_keys_of_any_kind_in_a_request_are_no_more_than_mistakes(tree: Any) -> None:
    with pytest.raises(InvalidParams):
        parse_settings_map(tree, source="request")


def test_a_key_given_twice_is_refused() -> None:
    data = json.dumps(settings()).replace('"deniedDomains": []', '"deniedDomains": ["*"], "deniedDomains": []')
    with pytest.raises(BadFile, match="given twice"):
        parse_settings(data.encode(), file="f")


def test_half_a_surrogate_pair_becomes_what_can_travel() -> None:
    data = json.dumps(settings(network__deniedDomains=["\ud800.example"], network__deniedDomainReasons={"x": "\udfff"}))
    read = parse_settings(data.encode(), file="f")
    assert read.denied == ("\ufffd.example",)
    msgspec.msgpack.encode(read)


def test_what_does_nothing_is_a_warning() -> None:
    read = parse_settings(json.dumps(settings(allowPty=True)).encode(), file="f")
    assert read.warnings == ("allowPty does nothing here: it is for macOS",)
