"""The words of `coworkctl tool`."""

from __future__ import annotations

import argparse

import pytest

from coworkd.cli.control_args import parse
from coworkd.cli.control_args_tools import parse_command


def test_each_verb_is_known() -> None:
    words = [
        "tool",
        "install",
        "agent",
        "1.0",
        "dir/agent.tar",
        "--sha256",
        "ab",
        "--command",
        "a=bin/a",
        "--no-switch",
    ]
    parsed = parse(words)
    assert (parsed.name, parsed.version, parsed.source, parsed.command) == (
        "agent",
        "1.0",
        "dir/agent.tar",
        [("a", "bin/a")],
    )
    assert parsed.no_switch
    assert parse(["tool", "list"]).verb == "list"
    assert parse(["tool", "rm", "agent"]).version is None


def test_a_digest_must_be_given() -> None:
    with pytest.raises(SystemExit):
        parse(["tool", "install", "agent", "1.0", "x"])


@pytest.mark.parametrize("text", ["", "a", "=b", "a="])
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_command(text)
