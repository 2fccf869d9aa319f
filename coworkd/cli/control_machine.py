"""`coworkctl boot-time`, `sync-clock`, `shutdown`: the machine below coworkd. They are answered while coworkd comes up, too."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from coworkd.cli.boot_picture import compose_picture, headline
from coworkd.cli.control_json import dump
from coworkd.cli.control_link import open_client
from coworkd.cli.control_tables import print_table, shown
from coworkd.model.errors import InvalidParams


def boot_time(args: argparse.Namespace) -> int:
    """A table, and with `--svg` a picture as well."""
    with open_client(args) as client:
        answer = client.boot_time()
    if args.svg is not None:
        try:
            Path(args.svg).write_text(compose_picture(answer), encoding="utf-8")
        except OSError as error:
            raise InvalidParams(f"{args.svg} cannot be written: {error.strerror}", key="svg") from error
    if args.json:
        print(dump(answer))
        return 0
    rows = [
        (
            f"{step.start_s:8.3f}",
            f"{step.took_s:8.3f}",
            step.group,
            step.name if step.error is None else f"{step.name}: {step.error}",
        )
        for step in answer.steps
    ]
    print_table(("   began", "    took", "group", "step"), rows)
    print(f"\n{headline(answer)}")
    for note in answer.notes:
        print(shown(note))
    return 0


def sync_clock(args: argparse.Namespace) -> int:
    """Status 1 where the guest's clock stays wrong."""
    with open_client(args) as client:
        answer = client.sync_clock(time=time.time())
    if args.json:
        print(dump(answer))
    elif answer.stepped:
        print(f"stepped by {answer.offset_s:.3f} s")
    else:
        print(f"not stepped: {shown(answer.reason)}" if answer.reason else f"right, to {abs(answer.offset_s):.3f} s")
    return 1 if answer.reason else 0


def shutdown(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        client.shutdown(reason=args.reason, budget_s=args.budget, power_off=args.power_off)
    return 0
