"""The words of `coworkctl folder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coworkd.cli.control_args_staged import add_staged
from coworkd.cli.control_parser import Parser, add_command

if TYPE_CHECKING:
    from coworkd.cli.control_parser import Subparsers

MODES = ("ro", "rw", "rwd", "staged")


def add_folders(commands: Subparsers) -> None:
    """The verbs that change which folders a session has, while its commands run."""
    folder = add_command(commands, "folder", None, "mount, unmount, change and list the folders of a session")
    verbs = folder.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    mount = add_command(verbs, "mount", "control_folders:mount", "share a directory or file with a session")
    mount.add_argument("session", metavar="SESSION")
    mount.add_argument(
        "folder",
        metavar="HOST_DIR:NAME:MODE",
        help="seen as ~/mnt/NAME; MODE is ro, rw (write, no delete), rwd or staged",
    )
    mount.add_argument("--optional", action="store_true", help="the session may be used though it is not there")
    unmount = add_command(verbs, "unmount", "control_folders:unmount", "take a folder away from a session")
    unmount.add_argument("session", metavar="SESSION")
    unmount.add_argument("name", metavar="NAME")
    mode = add_command(verbs, "mode", "control_folders:set_mode", "change the mode of a folder")
    mode.add_argument("session", metavar="SESSION")
    mode.add_argument("name", metavar="NAME")
    mode.add_argument("mode", metavar="MODE", choices=MODES, help="ro, rw, rwd or staged")
    listed = add_command(
        verbs, "list", "control_folders:list_all", "list the folders of a session, and how each stands"
    )
    listed.add_argument("session", metavar="SESSION")
    add_staged(verbs)
