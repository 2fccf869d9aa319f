"""`coworkctl storage …`: the session disk."""

from __future__ import annotations

import argparse

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import print_fields
from coworkd.model.calls_storage import StorageUsage

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def usage(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.storage_usage()
    if args.json:
        print(dump(answer))
    else:
        print_fields(_described(answer))
    return 0 if answer.state == "ok" else 1


def trim(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.storage_trim()
    print(dump(answer) if args.json else f"the device was told of {shown_bytes(answer.trimmed_bytes)} that are free")
    return 0


def grow(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.storage_grow(size=args.size)
    if args.json:
        print(dump(answer))
    elif answer.after_bytes == answer.before_bytes:
        print(f"it is as large as its device: {shown_bytes(answer.after_bytes)}")
    else:
        print(f"grown from {shown_bytes(answer.before_bytes)} to {shown_bytes(answer.after_bytes)}")
    return 0


def shown_bytes(amount: int) -> str:
    """Three digits and a unit: `1.53 GiB`."""
    for name, unit in _UNITS:
        if amount >= unit:
            return f"{amount / unit:.3g} {name}" if amount < 1000 * unit else f"{amount // unit} {name}"
    return f"{amount} bytes"


def _described(answer: StorageUsage) -> dict[str, object]:
    fields: dict[str, object] = {
        "state": answer.state if answer.reason is None else f"{answer.state}: {answer.reason}",
        "kind": answer.kind,
        "path": answer.path,
        "device": answer.device,
        "size": shown_bytes(answer.size_bytes),
        "used": shown_bytes(answer.used_bytes),
        "free": shown_bytes(answer.free_bytes),
        "reserved": shown_bytes(answer.reserved_bytes),
        "files": f"{answer.inodes - answer.inodes_free} of {answer.inodes}" if answer.inodes else "no limit",
        "quota": answer.quota,
    }
    if answer.pressure:
        fields["pressure"] = f"over {answer.pressure} %"
    return fields
