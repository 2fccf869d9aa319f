from __future__ import annotations

from typing import Any

import pytest

from coworkd.cli.control_args import parse


@pytest.mark.parametrize("before", [[], ["folder"]])
@pytest.mark.parametrize(
    ("words", "handler", "values"),
    [
        (["changes", "work", "src"], "control_staged:changes", {"session": "work", "name": "src", "diff": None}),
        (["changes", "work", "src", "--diff", "a b"], "control_staged:changes", {"diff": "a b"}),
        (["commit", "work", "src"], "control_staged:commit", {"paths": [], "overwrite": False}),
        (["commit", "work", "src", "a", "b", "--overwrite"], "control_staged:commit", {"paths": ["a", "b"], "overwrite": True}),
        (["discard", "work", "src", "a", "-y"], "control_staged:discard", {"paths": ["a"], "yes": True}),
    ],
)  # fmt: skip
def test_each_verb_stands_alone_and_below_folder(
    before: list[str], words: list[str], handler: str, values: dict[str, Any]
) -> None:
    args = parse([*before, *words])
    assert args.handler == handler
    assert {key: getattr(args, key) for key in values} == values


def test_a_verb_needs_a_folder() -> None:
    with pytest.raises(SystemExit):
        parse(["commit", "work"])
