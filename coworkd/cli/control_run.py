"""`coworkctl run`, `shell` and `attach`: one command, its bytes, its signals, its exit status.

Rules
- Without a session a throw-away one is made, and removed before we end; the guest removes it too when the link ends.
- A command of a session that stays outlives us: the keys that detach leave it, a link that is lost is looked for again, and what
  is said names the command that comes back to it. One of a throw-away session, or of a coworkd of our own, ends with us.
- Output that is not read holds the command back (`on_full` block): a pager loses nothing. A terminal's does not once it is left.
- Where somebody sits at a terminal, deletes of this command that wait for a person are asked about there.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import shlex
import sys
from collections.abc import Iterator

from coworkd.cli.control import report
from coworkd.cli.control_detach import choose_detach_keys
from coworkd.cli.control_exit import FAILURE_STATUS, failure_status, remark_on, status_of
from coworkd.cli.control_follow import AGAIN_S, STDERR, STDIN, STDOUT, Follower, Manner, OutputClosed
from coworkd.cli.control_link import named_uri, open_client
from coworkd.cli.control_screen import Replay
from coworkd.cli.control_sessions import ensure_from, parse_env
from coworkd.cli.control_signals import Signals
from coworkd.cli.control_tables import shown
from coworkd.cli.control_terminal import terminal_size, terminal_variables
from coworkd.client import Client, Process
from coworkd.client.inbox import without_refused
from coworkd.model.errors import CoworkError, InvalidParams, NotFound, OutOfRange
from coworkd.model.process import ExitRecord, OnFull, SpoolRequest

SHELL_ARGV = [
    "/bin/sh",
    "-c",
    'for shell in "$SHELL" /bin/bash; do [ -x "$shell" ] && exec "$shell" -l; done; exec sh -l',
]
PIPE_STATUS = 141
REPLAY_BYTES = 256 * 1024
"""What is looked at of a terminal's output to show its last screenful."""


def run(args: argparse.Namespace) -> int:
    """Status as `control_exit`."""
    return _run(args, args.session, args.argv, tty=args.tty, stdin=args.stdin, timeout_s=args.timeout)


def shell(args: argparse.Namespace) -> int:
    """As ssh(1): without a terminal of ours the shell has none either, and reads what it is to do."""
    return _run(args, args.session, SHELL_ARGV, tty=os.isatty(STDIN), stdin=True, timeout_s=None)


def _run(
    args: argparse.Namespace, session: str | None, argv: list[str], *, tty: bool, stdin: bool, timeout_s: float | None
) -> int:
    try:
        stays = session is not None and named_uri(args) is not None
        keys = choose_detach_keys(args.detach_keys, os.environ) if stays else b""
        with (
            open_client(args, again_s=AGAIN_S if stays else 0.0) as client,
            _signals(client) as signals,
            _session(client, args, session) as name,
        ):
            signals.defer()
            env = {**(terminal_variables(os.environ) if tty else {}), **(parse_env(args.env) or {})}
            process = client.start(
                name,
                argv,
                env=env or None,
                cwd=args.cwd,
                stdin=stdin and not tty,
                tty=terminal_size(STDIN, STDOUT, STDERR) if tty else None,
                profile=args.profile,
                timeout_s=timeout_s,
                on_full=_on_full(args.spool_full, terminal_stays=tty and stays),
                spool=_spool(args),
            )
            _say_narrowed(process)
            asks = not args.no_ask and os.isatty(STDIN) and os.isatty(STDERR)
            follower = Follower(client, process, signals, Manner(tty=tty, stdin=stdin, keys=keys, asks=asks))
            return _follow(args, follower, process, signals, kept=stays)
    except CoworkError as error:
        report(error, as_json=args.json)
        return failure_status(error)


def _on_full(said: str | None, *, terminal_stays: bool) -> OnFull | None:
    if said is None:
        return None if terminal_stays else "block"
    return "drop_oldest" if said == "drop-oldest" else "block"


def _spool(args: argparse.Namespace) -> SpoolRequest | None:
    if args.spool_limit is None and args.spool_where is None:
        return None
    return SpoolRequest(limit_bytes=args.spool_limit, where=args.spool_where or "memory")


def attach(args: argparse.Namespace) -> int:
    """Interrupted, or by the keys that detach, it leaves the command, which runs on; the status is then 128+n or 0."""
    try:
        keys = choose_detach_keys(args.detach_keys, os.environ)
        with open_client(args, again_s=AGAIN_S) as client, _signals(client) as signals:
            signals.defer()
            process, tty, replay = _attach(client, args.process, args.replay)
            manner = Manner(tty=tty, stdin=args.stdin, keys=keys, leaves=True, replay=replay)
            if tty:
                signals.redraw()
            return _follow(args, Follower(client, process, signals, manner), process, signals, kept=True)
    except CoworkError as error:
        report(error, as_json=args.json)
        return failure_status(error)


def _attach(client: Client, name: str, wanted: str | None) -> tuple[Process, bool, Replay | None]:
    """The command from where its output is wanted, whether it has a terminal, and what to show of what was."""
    kept = client.process_get(process=name).streams
    tty = "tty" in kept
    if wanted == "screen" and not tty:
        raise InvalidParams(f"process {name} has no terminal: --replay all or none", key="replay")
    if wanted is None:
        wanted = "screen" if tty and os.isatty(STDOUT) else "all"
    if wanted == "all":
        return client.attach(name), tty, None
    if wanted == "none":
        return _attach_at(client, name, {stream: end for stream, (_, end) in kept.items()}), tty, None
    first, end = kept["tty"]
    process = _attach_at(client, name, {"tty": max(first, end - REPLAY_BYTES)})
    return process, tty, Replay(end, terminal_size(STDOUT, STDIN, STDERR)[0])


def _attach_at(client: Client, name: str, offsets: dict[str, int]) -> Process:
    """From there, or from the oldest byte where those were dropped meanwhile."""
    while True:
        try:
            return client.attach(
                name, stdout=offsets.get("stdout"), stderr=offsets.get("stderr"), tty=offsets.get("tty")
            )
        except OutOfRange as error:
            offsets = without_refused(offsets, error)


def _follow(args: argparse.Namespace, follower: Follower, process: Process, signals: Signals, *, kept: bool) -> int:
    """Follow to the end; the status. `kept` says that the command outlives us."""
    started = args.command != "attach"
    try:
        record = follower.run()
    except OutputClosed as closed:
        if isinstance(closed.__cause__, TimeoutError):
            sys.stderr = io.StringIO()  # most likely the same terminal, and whoever writes to it would wait
        if started:
            process.kill(0)
            process.wait()
            process.forget()
        return _closed_status(closed, signals)
    except CoworkError as error:
        if not follower.lost:
            raise
        report(error, as_json=args.json)
        if kept:
            _say_way_back(args, process, "it may run on")
        return FAILURE_STATUS if signals.received is None else 128 + signals.received
    if record is None:
        if follower.untaken:
            print(
                f"coworkctl: {process.id} has not said that it took what was typed last: it may be lost",
                file=sys.stderr,
            )
        _say_way_back(args, process, "it runs on")
        return 0 if signals.received is None else 128 + signals.received
    if started:
        with contextlib.suppress(CoworkError):
            process.forget()
    return _status(record, signals)


def _status(record: ExitRecord, signals: Signals) -> int:
    if signals.received is not None:
        return 128 + signals.received
    remark = remark_on(record)
    if remark:
        print(f"coworkctl: {shown(remark)}", file=sys.stderr)
    return status_of(record)


def _closed_status(closed: OutputClosed, signals: Signals) -> int:
    if signals.received is not None:
        return 128 + signals.received
    error = closed.__cause__
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return PIPE_STATUS
    print(f"coworkctl: the command's output cannot be written: {error}", file=sys.stderr)
    return FAILURE_STATUS


def _say_way_back(args: argparse.Namespace, process: Process, state: str) -> None:
    where = f"--to {shlex.quote(args.to)} " if args.to is not None else ""
    print(f"coworkctl: left {process.id}; {state}: coworkctl {where}attach {process.id}", file=sys.stderr)


@contextlib.contextmanager
def _session(client: Client, args: argparse.Namespace, name: str | None) -> Iterator[str]:
    """The session to run in; a throw-away one is removed at the end."""
    ensured = ensure_from(client, args, name)
    for failed in ensured.failed_folders:
        print(f"coworkctl: folder {shown(failed.name)} is not mounted: {shown(failed.error)}", file=sys.stderr)
    try:
        yield ensured.session.name
    finally:
        if name is None and client.broken is None:
            with contextlib.suppress(NotFound):
                client.session_delete(session=ensured.session.name, force=True)


@contextlib.contextmanager
def _signals(client: Client) -> Iterator[Signals]:
    with Signals(size=lambda: terminal_size(STDIN, STDOUT, STDERR), give_up=client.close) as signals:
        yield signals


def _say_narrowed(process: Process) -> None:
    for sentence in process.narrowed:
        print(f"coworkctl: narrowed by policy: {shown(sentence)}", file=sys.stderr)
