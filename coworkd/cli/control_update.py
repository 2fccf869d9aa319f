"""`coworkctl update …`: which coworkd runs, and another one."""

from __future__ import annotations

import argparse

from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import print_fields, print_table, shown
from coworkd.model.calls_update import UpdateStatus


def status(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.update_status()
    if args.json:
        print(dump(answer))
        return 0
    print_fields(_described(answer))
    if answer.slots:
        print()
        rows = [
            (slot.slot, slot.version, slot.status, ", ".join(slot.contents), slot.reason or "") for slot in answer.slots
        ]
        print_table(("slot", "version", "status", "contents", "why"), rows)
    return 0


def apply(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.update_apply(again=args.again, restart=not args.later)
    if args.json:
        print(dump(answer))
    else:
        when = "coworkd restarts into it" if answer.restarting else "it runs from the next start on"
        print(f"{shown(answer.version)} is in slot {shown(answer.slot)}; {when}")
    return 0


def rollback(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        answer = client.update_rollback(to=args.to, reason=args.reason, restart=not args.later)
    if args.json:
        print(dump(answer))
    else:
        when = "coworkd restarts into it" if answer.restarting else "from the next start on"
        print(f"back to {shown(answer.version)} in slot {shown(answer.slot)}; {when}")
    return 0


def _described(answer: UpdateStatus) -> dict[str, object]:
    fields: dict[str, object] = {
        "running": f"{answer.version}, slot {answer.running}",
        "image": answer.image_version,
        "chosen": f"slot {answer.chosen}",
        "updates": "on" if answer.enabled else "off",
    }
    if answer.reason:
        fields["because"] = answer.reason
    disk = answer.disk
    if disk is not None:
        fields["update disk"] = f"{disk.device}, {disk.version or 'no version'}"
        if disk.reason:
            fields["not taken"] = disk.reason
    return fields
