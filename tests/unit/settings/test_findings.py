"""`settings.findings`: sentences, details and the nearest right spelling."""

from __future__ import annotations

import pytest

from coworkd.model.errors import Code, InvalidParams
from coworkd.settings.findings import BadFile, Finding, did_you_mean, nearest


def test_finding_reads_like_a_compilers() -> None:
    finding = Finding(file="a.toml", line=3, key="limits.nofile", message="is too large")
    assert str(finding) == "a.toml:3: limits.nofile: is too large"


def test_finding_without_key_leaves_it_out() -> None:
    assert str(Finding(file="a.toml", line=1, key="", message="is not UTF-8")) == "a.toml:1: is not UTF-8"


def test_bad_file_is_told_by_its_first_finding() -> None:
    first = Finding(file="a", line=2, key="k", message="m", nearest="kk")
    error = BadFile([first, Finding(file="b", line=9, key="x", message="y")])
    assert error.message == "a:2: k: m (and 1 more)"
    assert error.details == {"file": "a", "line": 2, "key": "k", "nearest": "kk"}
    assert isinstance(error, InvalidParams)
    assert error.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("limits.memory_mx", "limits.memory_max"),
        ("memory_max", "limits.memory_max"),
        ("sandbox.memory_max", "limits.memory_max"),
        ("zzzzzzzz", None),
        ("x" * 100_000, None),
    ],
)
def test_nearest_finds_misspelt_and_misplaced_keys(word: str, expected: str | None) -> None:
    assert nearest(word, ["limits.memory_max", "sandbox.base"]) == expected


def test_did_you_mean_is_empty_without_a_close_word() -> None:
    assert did_you_mean("qqq", ["dev", "strict"]) == ("", None)
    assert did_you_mean("strct", ["dev", "strict"]) == ("; did you mean 'strict'?", "strict")
