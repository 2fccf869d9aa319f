"""`coworkctl session …`, and the session options that `run` and `shell` share."""

from __future__ import annotations

import argparse
import secrets

from coworkd.cli.control_folders import parse_folder
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import is_local, open_client
from coworkd.cli.control_tables import clock, print_fields, print_table, shown
from coworkd.client.sync import Client
from coworkd.model.calls import SessionEnsured
from coworkd.model.errors import InvalidParams
from coworkd.model.session import FolderGrant, SessionInfo

THROW_AWAY_PREFIX = "run-"


def parse_env(words: list[str] | None) -> dict[str, str] | None:
    """`K=V` words; None for none. Raises `InvalidParams`."""
    if not words:
        return None
    made = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InvalidParams(f"--env {word!r}: write NAME=VALUE", key="env")
        made[key] = value
    return made


def ensure_from(client: Client, args: argparse.Namespace, name: str | None) -> SessionEnsured:
    """The session `name` as the options say, or a throw-away one that ends with this link."""
    folders = _folders_from(args)
    if name is not None:
        return client.session_ensure(name=name, profile=args.profile, folders=folders)
    thrown_away = THROW_AWAY_PREFIX + secrets.token_hex(6)
    return client.session_ensure(name=thrown_away, resume="new", profile=args.profile, folders=folders, ephemeral=True)


def ensure(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        ensured = client.session_ensure(
            name=args.name, profile=args.profile, folders=_folders_from(args), env=parse_env(args.env)
        )
    if args.json:
        print(dump(ensured))
        return 0
    print(f"session {shown(ensured.session.name)}: {'made' if ensured.created else 'there'}, uid {ensured.session.uid}")
    for failed in ensured.failed_folders:
        print(f"folder {shown(failed.name)} is not mounted: {shown(failed.error)}")
    for sentence in ensured.narrowed:
        print(f"narrowed: {shown(sentence)}")
    return 0


def list_all(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_list()
    if args.json:
        print(dump(answer))
        return 0
    print_table(
        ("NAME", "STATE", "UID", "PROFILE", "COMMANDS", "FOLDERS", "CREATED"),
        [
            (s.name, shown_state(s), s.uid, s.profile, s.processes, _folders(s), clock(s.created_at))
            for s in sorted(answer.sessions, key=lambda session: session.name)
        ],
    )
    return 0


def show(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.session_get(session=args.name)
    if args.json:
        print(dump(answer))
        return 0
    session = answer.session
    print_fields(
        {
            "name": session.name,
            "state": shown_state(session),
            "uid": session.uid,
            "home": session.home,
            "profile": session.profile,
            "commands": session.processes,
            "created": clock(session.created_at),
            **{f"folder {folder.name}": f"{folder.mode} {folder.source}" for folder in session.folders},
        }
    )
    return 0


def remove(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        removed = client.session_delete(session=args.name, force=args.force)
    if args.json:
        print(dump(removed))
    else:
        freed = "" if removed.freed_bytes is None else f", {removed.freed_bytes} bytes freed"
        print(f"session {shown(removed.name)} is removed{freed}")
    return 0


def _folders_from(args: argparse.Namespace) -> list[FolderGrant] | None:
    local = is_local(args)
    return [parse_folder(text, local=local) for text in args.folder] if args.folder else None


def shown_state(session: SessionInfo) -> str:
    """One that is ready and paused is paused, for people."""
    return "paused" if session.paused and session.state == "ready" else session.state


def _folders(session: SessionInfo) -> str:
    return " ".join(f"{folder.name}:{folder.mode}" for folder in session.folders) or "-"
