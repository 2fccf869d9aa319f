"""`logs` and `console`: what the machine has said, and says."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from host_stub.bundle_files import telling
from host_stub.cli.following import how_it_ended
from host_stub.cli.options import bundle_option, the_bundle
from host_stub.cli.telling import say
from host_stub.keeper_client import open_keeper
from host_stub.logs import escape
from host_stub.serial_log import lines_of
from host_stub.words import Trouble

LOGS = {"coworkd": "coworkd.log", "serial": "serial.log", "keeper": "keeper.log", "egress": "egress.log"}
FOLLOW_S = 0.5
LEAVE = b"\x1d"
"""Ctrl-], as telnet(1)."""
_TAIL_BYTES = 1 << 20
_PIECE_BYTES = 4096
_LINE_CHARACTERS = 4000


@click.command()
@bundle_option
@click.argument("which", type=click.Choice(sorted(LOGS)), default="coworkd")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
def logs(bundle: Path | None, which: str, lines: int, follow: bool) -> None:
    """Show a log: coworkd's, the serial console's, the keeper's, or of the way out."""
    path = the_bundle(bundle).logs / LOGS[which]
    if not path.exists() and not follow:
        raise Trouble("no_log", f"{path} is not there yet", remedy="start the machine: cowork-vm up")
    shown, offset = read_tail(path, lines)
    for line in shown:
        print(line)
    while follow:
        sys.stdout.flush()
        time.sleep(FOLLOW_S)
        offset, more = read_more(path, offset)
        for line in more:
            print(line)


@click.command()
@bundle_option
def console(bundle: Path | None) -> None:
    """Join the serial console. Ctrl-] leaves it."""
    there = the_bundle(bundle)
    path = there.run / "console.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as joined:
        try:
            joined.connect(str(path))
        except OSError as error:
            with open_keeper(there) as keeper:
                if keeper is None:
                    raise how_it_ended(there) from error
            raise Trouble(
                "no_console",
                f"the console {path} cannot be joined: {error.strerror}",
                remedy="see cowork-vm logs serial",
            ) from error
        say("joined; Ctrl-] leaves")
        with _raw(sys.stdin.fileno()):
            relay(joined, sys.stdin.fileno(), sys.stdout.fileno())
    say("left")


def read_tail(path: Path, count: int) -> tuple[list[str], int]:
    """The last `count` lines, fit to be shown, and where the file ended."""
    with telling("reading", path):
        if not path.exists():
            return [], 0
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL_BYTES))
            data = file.read(_TAIL_BYTES)
    return _shown(data, path.name)[-count:] if count else [], end


def read_more(path: Path, offset: int) -> tuple[int, list[str]]:
    """Whole lines behind `offset`, and where they end; from the beginning where the file began anew."""
    with telling("reading", path):
        if not path.exists():
            return 0, []
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                offset = 0
            file.seek(offset)
            data = file.read(_TAIL_BYTES)
    whole = data.rfind(b"\n") + 1
    if len(data) == _TAIL_BYTES and not whole:
        whole = len(data)  # a guest that never ends its line
    return offset + whole, _shown(data[:whole], path.name)


def _shown(data: bytes, name: str) -> list[str]:
    text = data.decode("utf-8", "replace")
    if name == LOGS["serial"]:
        return lines_of(text)
    return [escape(line, _LINE_CHARACTERS) for line in text.splitlines()]


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """The terminal as the guest wants it, for as long as this lasts; nothing where it is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def relay(joined: socket.socket, source: int, target: int, *, write: Callable[[int, bytes], int] = os.write) -> None:
    """Both ways until the console ends or `LEAVE` is typed. An end of `source` ends only that way."""
    poll = select.poll()
    poll.register(joined.fileno(), select.POLLIN)
    poll.register(source, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == joined.fileno():
                data = joined.recv(_PIECE_BYTES)
                if not data:
                    return
                while data:
                    data = data[write(target, data) :]
            else:
                typed = os.read(source, _PIECE_BYTES)
                kept, left, _ = typed.partition(LEAVE)
                if not typed:
                    poll.unregister(source)
                elif not _sent(joined, kept) or left:
                    return


def _sent(joined: socket.socket, data: bytes) -> bool:
    """Whether the console is still there."""
    try:
        joined.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
