"""`coworkctl run`, `shell` and `attach`: one command, its bytes, its signals, its exit status.

Rules
- Without a session a throw-away one is made, and removed before we end; the guest removes it too when the link ends.
- Output that is not read holds the command back (`on_full` block): a pager loses nothing.
- The terminal is given back before anything is said about the end.
- Where somebody sits at a terminal, deletes of this command that wait for a person are asked about there.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from coworkd.cli.control import report
from coworkd.cli.control_asking import Asker, DivertedKeys, TypedKeys
from coworkd.cli.control_exit import FAILURE_STATUS, failure_status, remark_on, status_of
from coworkd.cli.control_link import open_client
from coworkd.cli.control_relay import StdinPump, relay_output, write_whole
from coworkd.cli.control_sessions import ensure_from, parse_env
from coworkd.cli.control_signals import Signals
from coworkd.cli.control_terminal import raw_terminal, terminal_size
from coworkd.client import Client, Process
from coworkd.model.errors import CoworkError, NotFound
from coworkd.model.process import ExitRecord

STDIN, STDOUT, STDERR = 0, 1, 2
FDS = {"stdout": STDOUT, "stderr": STDERR, "tty": STDOUT}
SHELL_ARGV = ["/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash -l; fi; exec sh -l"]
PIPE_STATUS = 141


def run(args: argparse.Namespace) -> int:
    """Status as `control_exit`."""
    return _run(args, args.session, args.argv, tty=args.tty, stdin=args.stdin, timeout_s=args.timeout)


def shell(args: argparse.Namespace) -> int:
    return _run(args, args.session, SHELL_ARGV, tty=True, stdin=True, timeout_s=None)


def _run(
    args: argparse.Namespace, session: str | None, argv: list[str], *, tty: bool, stdin: bool, timeout_s: float | None
) -> int:
    try:
        with open_client(args) as client, _signals(client) as signals, _session(client, args, session) as name:
            signals.defer()
            process = client.start(
                name,
                argv,
                env=parse_env(args.env),
                cwd=args.cwd,
                stdin=stdin and not tty,
                tty=terminal_size(STDIN, STDOUT, STDERR) if tty else None,
                profile=args.profile,
                timeout_s=timeout_s,
                on_full="block",
            )
            _say_narrowed(process)
            asks = not args.no_ask and os.isatty(STDIN) and os.isatty(STDERR)
            record = _follow(process, signals, tty=tty, stdin=stdin, asking=client if asks else None)
            with contextlib.suppress(CoworkError):
                process.forget()
            return _status(record, signals)
    except CoworkError as error:
        report(error, as_json=args.json)
        return failure_status(error)


def attach(args: argparse.Namespace) -> int:
    """Interrupted, or by Ctrl-] in a terminal, it detaches, and the command runs on; the status is then 128+n or 0."""
    try:
        with open_client(args) as client, _signals(client) as signals:
            signals.defer()
            process = client.attach(args.process)
            record = _follow(process, signals, tty="tty" in process.offsets(), stdin=args.stdin, detach=True)
            return _status(record, signals)
    except CoworkError as error:
        report(error, as_json=args.json)
        return failure_status(error)


def _status(record: ExitRecord | None, signals: Signals) -> int:
    if signals.received is not None:
        return 128 + signals.received
    if record is None:
        return 0
    remark = remark_on(record)
    if remark:
        print(f"coworkctl: {remark}", file=sys.stderr)
    return status_of(record)


@contextlib.contextmanager
def _session(client: Client, args: argparse.Namespace, name: str | None) -> Iterator[str]:
    """The session to run in; a throw-away one is removed at the end."""
    ensured = ensure_from(client, args, name)
    for failed in ensured.failed_folders:
        print(f"coworkctl: folder {failed.name} is not mounted: {failed.error}", file=sys.stderr)
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


def _follow(
    process: Process,
    signals: Signals,
    *,
    tty: bool,
    stdin: bool,
    detach: bool = False,
    asking: Client | None = None,
) -> ExitRecord | None:
    """Relay until the end; None where we detached. The terminal is as before when this returns or raises."""
    detached = False

    def leave() -> None:
        nonlocal detached
        detached = True
        signals.give_up()

    signals.follow(process, detach=detach)
    with _maybe_raw(tty) as raw:
        pump = None
        if stdin or raw:
            if detach:
                process.resume_stdin()
            pump = StdinPump(
                process, STDIN, close_at_end=not tty and not detach, detached=leave if detach and raw else None
            )
            pump.start()
        asker = None if asking is None else _start_asker(asking, process, pump, raw=raw)
        try:
            _relay(process)
            return process.wait()
        except CoworkError:
            if detached or (detach and signals.received is not None):
                return None
            raise
        finally:
            if asker is not None:
                asker.stop()
            if pump is not None:
                pump.stop()


def _start_asker(client: Client, process: Process, pump: StdinPump | None, *, raw: bool) -> Asker:
    """Ask about this command's deletes, with the keys that its input is read from."""
    end = b"\r\n" if raw else b"\n"

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            write_whole(STDERR, b"coworkctl: " + line.encode("utf-8", "backslashreplace") + end)

    asker = Asker(
        client,
        TypedKeys(STDIN) if pump is None else DivertedKeys(pump),
        wanted=lambda question: question.process == process.id,
        say=say,
    )
    asker.start()
    return asker


@contextlib.contextmanager
def _maybe_raw(tty: bool) -> Iterator[bool]:
    if not tty:
        yield False
        return
    with raw_terminal(STDIN) as raw:
        yield raw


def _relay(process: Process) -> None:
    try:
        relay_output(process, FDS, lambda told: print(f"coworkctl: {told}", file=sys.stderr))
    except OSError as error:
        process.kill(0)
        process.wait()
        process.forget()
        if error.errno == errno.EPIPE:
            raise SystemExit(PIPE_STATUS) from error
        print(f"coworkctl: the command's output cannot be written: {error}", file=sys.stderr)
        raise SystemExit(FAILURE_STATUS) from error


def _say_narrowed(process: Process) -> None:
    for sentence in process.narrowed:
        print(f"coworkctl: narrowed by policy: {sentence}", file=sys.stderr)
