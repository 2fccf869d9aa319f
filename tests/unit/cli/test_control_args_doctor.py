"""The words of `coworkctl doctor`."""

from __future__ import annotations

import pytest

from coworkd.cli.control_args import parse


def test_without_a_verb_everything_is_checked() -> None:
    assert parse(["doctor"]).handler == "control_daemon:doctor"


@pytest.mark.parametrize(
    ("words", "handler"),
    [
        (["folder", "s", "/x"], "control_doctor:folder"),
        (["denied"], "control_doctor:denied"),
        (["denied", "s"], "control_doctor:denied"),
    ],
)
def test_each_trouble_has_its_verb(words: list[str], handler: str) -> None:
    assert parse(["doctor", *words]).handler == handler


def test_a_wrong_verb_is_told() -> None:
    with pytest.raises(SystemExit):
        parse(["doctor", "folders"])
