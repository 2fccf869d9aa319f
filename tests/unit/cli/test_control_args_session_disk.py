from __future__ import annotations

import argparse
from typing import get_args

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_args_session_disk import WHAT, parse_what
from coworkd.model.calls_storage import PruneWhat


def test_the_words_are_those_of_the_wire() -> None:
    assert get_args(PruneWhat) == WHAT


def test_what_is_a_list_of_words() -> None:
    assert parse_what("tmp,caches") == ("caches", "tmp")
    assert parse_what("stages") == ("stages",)
    for text in ("", "home", "caches,", "caches tmp"):
        with pytest.raises(argparse.ArgumentTypeError, match="none of caches, tmp, stages"):
            parse_what(text)


def test_prune_deletes_caches_and_tmp_of_all_where_nothing_is_said() -> None:
    args = parse(["session", "prune"])
    assert (args.name, args.what, args.older_than, args.larger_than, args.dry_run) == (
        None,
        ("caches", "tmp"),
        None,
        0,
        False,
    )
    assert parse(["session", "prune", "work", "--larger-than", "10M"]).larger_than == 10 << 20


def test_retention_only_shows_where_apply_is_not_said() -> None:
    assert not parse(["session", "retention"]).apply
    assert parse(["session", "retention", "--apply"]).apply
