"""The words of `cowork-vm`: each command is in a module beside this one, imported when it is named."""

from __future__ import annotations

from importlib import import_module

import click

from coworkd import __version__

COMMANDS = {
    "create": "bundles:create",
    "up": "machines:up",
    "down": "machines:down",
    "restart": "machines:restart",
    "status": "machines:status",
    "exec": "guests:exec_",
    "shell": "guests:shell",
    "ctl": "guests:ctl",
    "tool": "guests:tool",
    "console": "reading:console",
    "logs": "reading:logs",
    "doctor": "doctor:doctor",
    "renew": "bundles:renew",
    "grow": "bundles:grow",
    "rm": "bundles:rm",
    "release": "release:release",
}
"""In the order a person meets them."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"host_stub.cli.{module}"), name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cowork-vm")
def cowork_vm() -> None:
    """A Linux machine whose sessions are sandboxes: create it, start it, run commands in it."""
