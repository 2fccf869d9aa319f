"""`coworkctl ca …`: certificates of authorities that sandboxes trust beside the guest's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import clock, print_table
from coworkd.model.calls import InstalledCa
from coworkd.model.errors import InvalidParams

MAX_PEM_BYTES = 768 * 1024
"""What fits into one call, whatever is around it."""


def install(args: argparse.Namespace) -> int:
    pem = _read(args.file)
    with open_client(args) as client:
        answer = client.ca_install(name=args.name, pem=pem)
    if args.json:
        print(dump(answer))
    else:
        _print(answer.installed)
    return 0


def list_all(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.ca_list()
    if args.json:
        print(dump(answer))
    else:
        _print(answer.installed)
    return 0


def remove(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.ca_remove(name=args.name)
    print(dump(answer) if args.json else f"the certificates of {args.name} are trusted no more")
    return 0


def _print(installed: Sequence[InstalledCa]) -> None:
    print_table(
        ("NAME", "EXPIRES", "SHA-256", "SUBJECT"),
        [(one.name, clock(one.not_after), one.sha256[:16], one.subject) for one in installed],
    )


def _read(path: str) -> str:
    """The PEM text of a file, `-` for standard input. Raises `InvalidParams`."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_PEM_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise InvalidParams(f"{path}: {error.strerror}", key="file") from error
    if len(data) > MAX_PEM_BYTES:
        raise InvalidParams(
            f"{path} has more than {MAX_PEM_BYTES} bytes: send a few certificates, not a whole bundle", key="file"
        )
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        # Comments between certificates may be in any language; DER is no text at all, and the guest says what to do.
        return data.decode("utf-8", "replace")
