"""The words of `coworkctl storage`."""

from __future__ import annotations

import argparse

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_args_storage import parse_size


def test_a_size_is_a_number_with_a_unit_or_without() -> None:
    assert (parse_size("20G"), parse_size("4096")) == (20 << 30, 4096)


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_size(text)


def test_each_verb_is_known() -> None:
    assert parse(["storage", "usage"]).verb == "usage"
    assert parse(["storage", "trim"]).verb == "trim"
    assert parse(["storage", "grow", "1G"]).size == 1 << 30
