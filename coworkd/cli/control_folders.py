"""`coworkctl folder …`, and the word for a folder that `run`, `shell` and `session ensure` share."""

from __future__ import annotations

import argparse
import os
from typing import get_args

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import is_local, open_client
from coworkd.cli.control_tables import print_table, shown
from coworkd.model.calls import FolderInfo
from coworkd.model.errors import InvalidParams
from coworkd.model.policy import FolderMode
from coworkd.model.session import FolderGrant

_OPTIONAL = ":optional"


def parse_folder(text: str, *, local: bool, key: str = "--folder") -> FolderGrant:
    """`HOST_DIR:NAME:MODE[:optional]`; the directory may hold colons, and is made absolute where it is one of this machine."""
    required = not text.endswith(_OPTIONAL)
    parts = text.removesuffix(_OPTIONAL).rsplit(":", 2)
    if len(parts) != 3 or not parts[0] or not parts[1]:
        raise InvalidParams(f"{key} {text!r}: write HOST_DIR:NAME:MODE, such as ~/src:src:ro", key="folder")
    source, name, mode = parts
    return FolderGrant(
        name=name,
        source=os.path.abspath(source) if local else source,
        mode=parse_mode(mode, f"{key} {text!r}"),
        required=required,
    )


def parse_mode(spelled: str, where: str) -> FolderMode:
    """Raises `InvalidParams`."""
    modes: tuple[FolderMode, ...] = get_args(FolderMode)
    mode = next((each for each in modes if each == spelled), None)
    if mode is None:
        raise InvalidParams(f"{where}: the mode {spelled!r} is none of {', '.join(modes)}", key="folder")
    return mode


def mount(args: argparse.Namespace) -> int:
    grant = parse_folder(args.folder, local=is_local(args), key="folder")
    with open_client(args) as client:
        answer = client.folder_mount(
            session=args.session,
            name=grant.name,
            source=grant.source,
            mode=grant.mode,
            required=grant.required and not args.optional,
        )
    _tell(answer.folder, args)
    return 0


def set_mode(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.folder_set_mode(session=args.session, name=args.name, mode=args.mode)
    _tell(answer.folder, args)
    return 0


def unmount(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        gone = client.folder_unmount(session=args.session, name=args.name)
    if args.json:
        print(dump(gone))
        return 0
    print(f"folder {shown(args.name)} is unmounted" + (", and goes when its last user ends" if gone.busy else ""))
    for left in gone.leftovers:
        print(f"  {shown(left)}")
    return 0


def list_all(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.folder_list(session=args.session)
    if args.json:
        print(dump(answer))
        return 0
    print_table(
        ("NAME", "MODE", "STATE", "AS", "SOURCE", "WHY"),
        [
            (each.name, each.mode, _state(each), each.mounted_as, each.source, _why(each))
            for each in answer.folders
        ],
    )  # fmt: skip
    return 0


def _state(folder: FolderInfo) -> str:
    return folder.state if folder.required else f"{folder.state} (optional)"


def _why(folder: FolderInfo) -> str:
    return "; ".join([*([folder.error] if folder.error else []), *folder.degraded]) or "-"


def _tell(folder: FolderInfo, args: argparse.Namespace) -> None:
    if args.json:
        print(dump(folder))
        return
    if folder.state == "failed":
        print(f"folder {shown(folder.name)} is not mounted: {shown(folder.error)}")
    elif folder.state == "closed":
        print(f"folder {shown(folder.name)} is {folder.mode} when session {shown(args.session)} is opened")
    else:
        print(f"folder {shown(folder.name)} is at {shown(folder.path)}, {folder.mode} ({folder.mounted_as})")
    for sentence in folder.degraded:
        print(f"  {shown(sentence)}")
