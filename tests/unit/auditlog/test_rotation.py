"""Rotation: names and drops."""

from __future__ import annotations

import pytest

from coworkd.auditlog.rotation import compose_name, log_files, parse_name, plan_drops


def test_name_holds_the_first_seq() -> None:
    assert parse_name(compose_name(4711)) == 4711


@pytest.mark.parametrize("name", ["reserve", "audit-1.jsonl", "audit-00000000000000000001.jsonl~", "audit-.jsonl"])
def test_other_names_are_no_files_of_the_log(name: str) -> None:
    assert parse_name(name) is None


def test_files_come_oldest_first() -> None:
    names = [compose_name(seq) for seq in (100, 9, 2000)]
    assert log_files([*names, "reserve"]) == [compose_name(9), compose_name(100), compose_name(2000)]


def test_drops_are_the_oldest_and_no_more_than_needed() -> None:
    files = [("a", 10), ("b", 10), ("c", 10), ("d", 10), ("e", 0)]
    assert plan_drops(files, 25) == ["a", "b"]


def test_the_newest_two_always_stay() -> None:
    assert plan_drops([("a", 100), ("b", 100), ("c", 0)], 1) == ["a"]


def test_nothing_is_dropped_within_the_bound() -> None:
    assert plan_drops([("a", 10), ("b", 10), ("c", 0)], 20) == []
