from __future__ import annotations

import argparse

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_args_limits import parse_amount
from coworkd.model.policy import LimitsRequest


def test_every_limit_of_a_request_has_its_option() -> None:
    args = parse(["session", "limits", "work"])
    assert all(hasattr(args, name) for name in LimitsRequest.__struct_fields__)


def test_amounts_are_sizes_and_zero_is_none() -> None:
    assert parse_amount("0") == 0
    assert parse_amount("512M") == 512 << 20
    with pytest.raises(argparse.ArgumentTypeError):
        parse_amount("much")
