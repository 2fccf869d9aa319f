"""The words of `coworkctl boot-time`, `sync-clock` and `shutdown`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_parser import add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers


def add_machine(commands: Subparsers) -> None:
    """The verbs of the machine below coworkd."""
    boot = add_command(commands, "boot-time", "control_machine:boot_time", "show where the time of the boot went")
    boot.add_argument("--svg", metavar="FILE", help="draw it as well")
    add_command(commands, "sync-clock", "control_machine:sync_clock", "step the guest's clock forward to this one's")
    end = add_command(commands, "shutdown", "control_machine:shutdown", "stop coworkd, or the guest it runs in")
    end.add_argument("--power-off", action="store_true", help="end the commands and turn the guest off")
    end.add_argument("--budget", type=float, metavar="S", help="all of it within S seconds (default: as configured)")
    end.add_argument("--reason", default="", metavar="TEXT", help="what the audit log says")
