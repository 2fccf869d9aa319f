"""`netpolicy.presets`: names, what is the same everywhere, and what was found out on this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coworkd.model.egress import EgressSettings
from coworkd.model.errors import InvalidParams
from coworkd.netpolicy.patterns import refuse_domain
from coworkd.netpolicy.presets import NAMES, RESOLVED, STATIC, PresetTable, ResolvedPreset, parse_presets, resolve
from coworkd.settings import BadFile

TABLE = PresetTable(
    presets={"python": ResolvedPreset(hosts=("index.example",)), "rust": ResolvedPreset(hosts=("m.example",))}
)


def asking(*presets: str) -> EgressSettings:
    return EgressSettings(source="p.json", presets=presets)


def parse(tree: Any) -> PresetTable:
    return parse_presets(json.dumps(tree).encode(), file="presets.json")


def with_env(env: object) -> dict[str, Any]:
    return {"format": 1, "presets": {"python": {"hosts": ["a.b"], "env": env}}}


def test_a_preset_is_what_stands_here_and_what_was_found_out() -> None:
    resolved = resolve(asking("python", "rust", "github"), TABLE)
    assert resolved.preset_hosts["python"] == ("index.example",)
    assert resolved.preset_hosts["rust"] == (*STATIC["rust"], "m.example")
    assert resolved.preset_hosts["github"] == STATIC["github"]
    assert resolved.warnings == ()


@pytest.mark.parametrize("preset", RESOLVED)
def test_a_preset_that_nobody_found_out_allows_nothing_and_says_so(preset: str) -> None:
    resolved = resolve(asking(preset), PresetTable())
    assert resolved.preset_hosts == {preset: ()}
    [warning] = resolved.warnings
    assert f"{preset!r} allows nothing" in warning


def test_resolving_again_says_nothing_twice() -> None:
    once = resolve(asking("python"), PresetTable())
    assert resolve(once, PresetTable()) == once
    assert resolve(once, TABLE).preset_hosts == {"python": ("index.example",)}


def test_settings_get_the_variables_of_the_presets_they_name() -> None:
    index, registry = {"PIP_INDEX_URL": "https://p.example/"}, {"NPM_CONFIG_REGISTRY": "https://n.example/"}
    table = PresetTable(
        presets={
            "python": ResolvedPreset(hosts=("p.example",), env=index),
            "node": ResolvedPreset(hosts=("n.example",), env=registry),
        }
    )
    assert resolve(asking("python", "node", "rust"), table).preset_env == {**index, **registry}
    assert resolve(asking("node"), table).preset_env == registry
    assert resolve(resolve(asking("python"), table), PresetTable()).preset_env == {}


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidParams, match="did you mean 'python'"):
        resolve(asking("pyton"), TABLE)


def test_every_pattern_that_stands_here_is_a_valid_one() -> None:
    assert [host for hosts in STATIC.values() for host in hosts if refuse_domain(host, denied=False)] == []
    assert NAMES == ("anthropic", "debian", "github", "node", "python", "rust", "sentry", "ubuntu")


def test_a_table_is_read() -> None:
    table = parse(
        {
            "format": 1,
            "made_at": 5.5,
            "presets": {
                "node": {"hosts": ["*.n.example", "mirror:8080", "[::1]:1"], "from": ["npm"]},
                "python": {"hosts": ["p.example"], "env": {"PIP_INDEX_URL": "https://p.example/simple"}},
                "rust": {"hosts": []},
            },
        }
    )
    assert table.made_at == 5.5
    assert table.presets["node"] == ResolvedPreset(hosts=("*.n.example", "mirror:8080", "[::1]:1"), said_by=("npm",))
    assert table.presets["python"].env == {"PIP_INDEX_URL": "https://p.example/simple"}
    assert table.hosts("rust") == STATIC["rust"]


@pytest.mark.parametrize(
    ("tree", "key", "says"),
    [
        ({}, "format", "is missing"),
        ({"format": 2, "presets": {}}, "format", "the only format"),
        ({"format": True, "presets": {}}, "format", "the only format"),
        ({"format": 1, "presets": []}, "presets", "wants an object"),
        ({"format": 1, "presets": {"pyton": {"hosts": []}}}, "presets.pyton", "did you mean 'python'"),
        ({"format": 1, "presets": {"python": {}}}, "presets.python.hosts", "is missing"),
        ({"format": 1, "presets": {"python": {"hosts": ["*"]}}}, "presets.python.hosts[0]", "names no host|'\\*'"),
        ({"format": 1, "presets": {"python": {"hosts": ["*.com"]}}}, "presets.python.hosts[0]", "too far"),
        ({"format": 1, "presets": {"python": {"hosts": ["http://a.b"]}}}, "presets.python.hosts[0]", "is a URL"),
        ({"format": 1, "presets": {"python": {"hosts": ["a.b"] * 257}}}, "presets.python.hosts", "more than"),
        (with_env([]), "presets.python.env", "wants an object"),
        (with_env({"PIP_INDEX_URL": 1}), "presets.python.env.PIP_INDEX_URL", "wants text"),
        (with_env({"PIP_INDEX_URL": "https://u:hunter2@a.b/"}), "presets.python.env.PIP_INDEX_URL", "a password"),
        (with_env({"PIP_INDX_URL": "https://a.b/"}), "presets.python.env.PIP_INDX_URL", "did you mean 'PIP_INDEX_URL'"),
        (with_env({"LD_PRELOAD": "/x.so"}), "presets.python.env.LD_PRELOAD", "is no variable"),
        ({"format": 1, "made": 1, "presets": {}}, "made", "did you mean 'made_at'"),
        ({"format": 1, "made_at": "x", "presets": {}}, "made_at", "wants a number"),
    ],
)
def test_a_wrong_table_is_refused_by_key(tree: Any, key: str, says: str) -> None:
    with pytest.raises(BadFile, match=says) as caught:
        parse(tree)
    assert caught.value.findings[0].key == key
    assert "hunter2" not in str(caught.value)


def test_another_distribution_than_this_machines_is_nothing_to_warn_of() -> None:
    table = PresetTable(presets={"debian": ResolvedPreset(hosts=("mirror.example",))})
    both = resolve(EgressSettings(source="s", presets=("debian", "ubuntu")), table)
    assert (both.preset_hosts["ubuntu"], both.warnings) == ((), ())
    alone = resolve(EgressSettings(source="s", presets=("ubuntu",)), table)
    assert len(alone.warnings) == 1
