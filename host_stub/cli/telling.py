"""What is said to a person: progress, what happens, and troubles; all of it on standard error, standard output is for answers.

Rules
- On a terminal a long step has a bar; elsewhere each step is one line, said once.
- A trouble is one sentence and a remedy. Whatever comes from a guest is escaped before it is shown.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from host_stub.bundle_files import Progress
from host_stub.logs import escape
from host_stub.words import MachineEvent, Trouble

LINE_CHARACTERS = 2000


def say(message: str) -> None:
    """One line."""
    print(f"cowork-vm: {escape(message, LINE_CHARACTERS)}", file=sys.stderr, flush=True)


def say_trouble(trouble: Trouble) -> None:
    """What went wrong, the last lines of the console where it has them, and what to do."""
    for line in trouble.details.get("serial") or ():
        print(f"    | {escape(str(line), LINE_CHARACTERS)}", file=sys.stderr)
    say(f"{trouble.message} [{trouble.code}]")
    print(f"    what to do: {escape(trouble.remedy, LINE_CHARACTERS)}", file=sys.stderr, flush=True)


def say_event(event: MachineEvent) -> None:
    """What happened to a machine."""
    label = f"{event.state.value}: " if event.state is not None else ""
    say(f"{label}{event.message}")


def print_json(answer: Any) -> None:
    """An answer for programs."""
    print(json.dumps(msgspec.to_builtins(answer), indent=2))


@contextlib.contextmanager
def showing_progress() -> Iterator[Progress]:
    """A `Progress` for a person: bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines().progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(escape(what, LINE_CHARACTERS), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


class _Lines:
    def __init__(self) -> None:
        self._said = ""

    def progress(self, what: str, _done: int, total: int) -> None:
        if what != self._said:
            self._said = what
            say(f"{what} ({total / (1 << 20):.0f} MiB)")
