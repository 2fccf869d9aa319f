"""What all commands share: which bundle, and the machine in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from host_stub.bundle import Bundle, open_bundle
from host_stub.cli.place import BUNDLE_VARIABLE, default_bundle, parse_size
from host_stub.words import Trouble

F = TypeVar("F", bound=Callable[..., Any])


class PassOnCommand(click.Command):
    """A command whose words are another program's, whatever they look like: all behind a `--bundle` at their beginning."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = 0
        while ours < len(args) and args[ours].partition("=")[0] == "--bundle":
            ours += 1 if "=" in args[ours] else 2
        return super().parse_args(ctx, [*args[:ours], "--", *args[ours:]])


class Size(click.ParamType[int]):
    """A size as people write it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except Trouble as trouble:
            self.fail(f"{trouble.message}: {trouble.remedy}", param, ctx)


def bundle_option(command: F) -> F:
    """`--bundle DIR`."""
    option = click.option(
        "--bundle",
        type=click.Path(path_type=Path),
        envvar=BUNDLE_VARIABLE,
        metavar="DIR",
        help="The machine. Default: one of your own, in the data directory.",
    )
    return option(command)


def bundle_path(given: Path | None) -> Path:
    """The bundle's place, whether there is one or not."""
    return default_bundle() if given is None else given


def the_bundle(given: Path | None) -> Bundle:
    """The bundle that was named, or one's own. Raises `Trouble` where there is none."""
    return open_bundle(bundle_path(given))
