"""`policy.ceiling`: reading and layering."""

from __future__ import annotations

import pytest

from coworkd.policy.ceiling import load_ceiling, parse_ceiling
from coworkd.policy.layers import Layer
from coworkd.settings import BadFile, Finding


def layer(root: str, text: str) -> Layer:
    return Layer(root=root, files={"ceiling.toml": text.encode()})


def test_names_are_lists_in_a_ceiling() -> None:
    given = parse_ceiling(b'[sandbox]\nseccomp = ["default", "corp"]\n', file="c")
    assert given["sandbox.seccomp"].value == ("default", "corp")


@pytest.mark.parametrize("text", ['[sandbox]\nseccomp = "default"', 'inherits = "default"', "[limits]\nnofile = 0"])
def test_what_is_no_ceiling_is_refused(text: str) -> None:
    with pytest.raises(BadFile):
        parse_ceiling(text.encode(), file="c")


def test_a_higher_layer_replaces_whole_keys() -> None:
    low = layer("/low", '[limits]\nnofile = 10\npids_max = 20\n[folders]\nmodes = ["ro", "rw"]\n')
    high = layer("/high", '[limits]\nnofile = 30\n[folders]\nmodes = ["rwd"]\n')
    findings: list[Finding] = []
    merged = {key: item.value for key, item in load_ceiling([low, high], findings).items()}
    assert merged == {"limits.nofile": 30, "limits.pids_max": 20, "folders.modes": ("rwd",)}
    assert findings == []


def test_mistakes_of_all_layers_are_collected() -> None:
    findings: list[Finding] = []
    load_ceiling([layer("/low", "x = 1"), Layer(root="/none", files={}), layer("/high", "y = 1")], findings)
    assert [finding.file for finding in findings] == ["/low/ceiling.toml", "/high/ceiling.toml"]
