"""The words of `coworkctl folder`."""

from __future__ import annotations

from typing import get_args

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_args_folders import MODES
from coworkd.model.policy import FolderMode


def test_the_modes_are_those_of_the_model() -> None:
    assert get_args(FolderMode) == MODES


@pytest.mark.parametrize(
    ("words", "handler"),
    [
        (["mount", "work", "/a:b:rw", "--optional"], "mount"),
        (["unmount", "work", "b"], "unmount"),
        (["mode", "work", "b", "rwd"], "set_mode"),
        (["list", "work"], "list_all"),
    ],
)
def test_every_verb_has_its_handler(words: list[str], handler: str) -> None:
    args = parse(["folder", *words])
    assert (args.handler, args.session) == (f"control_folders:{handler}", "work")


def test_a_wrong_mode_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["folder", "mode", "work", "b", "stagd"])
    assert "did you mean 'staged'?" in capsys.readouterr().err
