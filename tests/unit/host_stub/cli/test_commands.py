"""The words of `cowork-vm`."""

from __future__ import annotations

import click
import pytest

from host_stub.cli.commands import COMMANDS, cowork_vm


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    command = cowork_vm.get_command(click.Context(cowork_vm), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200)


def test_all_that_was_promised_is_there() -> None:
    promised = "create up down status exec shell console logs doctor rm tool"
    assert set(promised.split()) <= set(cowork_vm.list_commands(click.Context(cowork_vm)))
