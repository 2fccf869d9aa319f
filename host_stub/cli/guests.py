"""`exec`, `shell`, `ctl` and `tool`: coworkctl's own commands against the machine's guest. None of its code is here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from coworkd.wire.endpoint import UnixEndpoint
from host_stub.bundle import Bundle
from host_stub.cli.following import how_it_ended
from host_stub.cli.options import PassOnCommand, bundle_option, the_bundle
from host_stub.cli.telling import say_trouble
from host_stub.keeper_client import open_keeper
from host_stub.tool_share import shared_tool
from host_stub.words import Trouble

NO_MACHINE_STATUS = 125
NOWHERE = "/nonexistent/cowork-vm"
_WORDS = click.argument("words", nargs=-1, type=click.UNPROCESSED)


@click.command(name="exec", cls=PassOnCommand)
@bundle_option
@_WORDS
def exec_(bundle: Path | None, words: tuple[str, ...]) -> int:
    """Run a command in a session: cowork-vm exec [OPTIONS of coworkctl run] -- ARGV..."""
    return _control(bundle, ["run", *words])


@click.command(cls=PassOnCommand)
@bundle_option
@_WORDS
def shell(bundle: Path | None, words: tuple[str, ...]) -> int:
    """Open a shell in a session: cowork-vm shell [OPTIONS of coworkctl shell] [SESSION]"""
    return _control(bundle, ["shell", *words])


@click.command(cls=PassOnCommand)
@bundle_option
@_WORDS
def ctl(bundle: Path | None, words: tuple[str, ...]) -> int:
    """Any command of coworkctl against the guest: cowork-vm ctl ps --json"""
    return _control(bundle, list(words))


@click.command(cls=PassOnCommand)
@bundle_option
@_WORDS
def tool(bundle: Path | None, words: tuple[str, ...]) -> int:
    """Agent programs in the guest: cowork-vm tool install NAME VERSION FILE|DIR · list · rm NAME [VERSION]"""
    if _asks_for_help(words):
        return _control(bundle, ["tool", *words])
    try:
        with shared_tool(list(words), the_bundle(bundle).share) as given:
            return _control(bundle, ["tool", *given])
    except Trouble as trouble:
        say_trouble(trouble)
        return NO_MACHINE_STATUS


def _control(given: Path | None, words: Sequence[str]) -> int:
    from coworkd.cli.control import main as coworkctl

    try:
        bundle = the_bundle(given)
        _require_keeper(bundle)
        uri = bundle.uri
    except Trouble as trouble:
        if not _asks_for_help(words):
            say_trouble(trouble)
            return NO_MACHINE_STATUS
        uri = str(UnixEndpoint(path=NOWHERE))
    try:
        return coworkctl(["--to", uri, *words])
    except SystemExit as leaving:  # as argparse leaves, for --help and for wrong words
        return leaving.code if isinstance(leaving.code, int) else 2


def _asks_for_help(words: Sequence[str]) -> bool:
    """Whether it may be help that is asked for, which takes no machine; where it was not, nobody answers at `NOWHERE`."""
    ours = words[: words.index("--")] if "--" in words else words
    return "--help" in ours or "-h" in ours


def _require_keeper(bundle: Bundle) -> None:
    with open_keeper(bundle) as keeper:
        if keeper is None:
            raise how_it_ended(bundle)
