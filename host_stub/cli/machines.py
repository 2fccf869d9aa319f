"""`up`, `down`, `restart` and `status`: the machine in a bundle, by its keeper."""

from __future__ import annotations

import time
from pathlib import Path

import click

from host_stub import session_disk
from host_stub.bundle import Bundle
from host_stub.cli.following import how_it_ended, wait_until_up
from host_stub.cli.options import Size, bundle_option, the_bundle
from host_stub.cli.telling import print_json, say, say_event, showing_progress
from host_stub.keeper_client import KeeperGone, open_keeper
from host_stub.keeper_lock import hold_lock, is_held, read_record
from host_stub.keeper_start import start_keeper
from host_stub.keeper_words import Image, Status
from host_stub.machine import STOP_BUDGET_S
from host_stub.words import MachineState, Trouble

NOT_RUNNING_STATUS = 3
_JOIN_S = 10.0


@click.command()
@bundle_option
@click.option("--wait", type=float, metavar="S", help="Give up waiting after S seconds; the machine goes on starting.")
@click.option("--no-wait", is_flag=True, help="Return as soon as the guest's kernel runs.")
@click.option("--new-session-disk", is_flag=True, help="Make an empty one where the session disk is gone.")
@click.option("--disk", type=Size(), default="10G", show_default=True, help="Its size.")
@click.option("--foreground", is_flag=True, help="Stay, and stop the machine at Ctrl-C or SIGTERM.")
def up(
    bundle: Path | None, wait: float | None, no_wait: bool, new_session_disk: bool, disk: int, foreground: bool
) -> int:
    """Start the machine, and wait until it is ready. One that runs already is joined."""
    there = the_bundle(bundle)
    if new_session_disk:
        with hold_lock(there):
            session_disk.create(there.session_disk, disk)
    if foreground:
        from host_stub import keeper

        return keeper.main([str(there.path)])
    try:
        if _runs(there):
            say(f"{there.path} runs already")
        else:
            _start(there)
        if not no_wait:
            status = wait_until_up(there, say_event, limit_s=wait)
            say(f"up{_after(status)}: {status.uri}")
    except KeyboardInterrupt:
        say("not waited for any longer; the machine goes on: see cowork-vm status, end it with cowork-vm down")
        raise
    return 0


@click.command()
@bundle_option
@click.option(
    "--budget", type=float, default=STOP_BUDGET_S, show_default=True, metavar="S", help="Seconds for a graceful end."
)
@click.option("--kill", is_flag=True, help="End it at once. What was not written yet is lost.")
def down(bundle: Path | None, budget: float, kill: bool) -> None:
    """Stop the machine: ask it, press its power button, end it."""
    there = the_bundle(bundle)
    with open_keeper(there) as keeper:
        if keeper is None:
            say(f"{there.path} does not run")
            return
        try:
            status = keeper.kill() if kill else keeper.stop(budget_s=budget, reason="cowork-vm down")
            said = status.message
        except KeeperGone:
            said = how_it_ended(there).message
    _await_unlock(there)
    say(said)


@click.command()
@bundle_option
@click.option(
    "--budget", type=float, default=STOP_BUDGET_S, show_default=True, metavar="S", help="Seconds for a graceful end."
)
def restart(bundle: Path | None, budget: float) -> None:
    """Stop the machine and start it again, by the same keeper."""
    there = the_bundle(bundle)
    with open_keeper(there) as keeper:
        if keeper is None:
            raise how_it_ended(there)
        keeper.restart(budget_s=budget, reason="cowork-vm restart")
    wait_until_up(there, say_event)


@click.command()
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(bundle: Path | None, as_json: bool) -> int:
    """Say how the machine is. Status 3 where it does not run."""
    there = the_bundle(bundle)
    found = current_status(there)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    return 0 if found.keeper_pid is not None else NOT_RUNNING_STATUS


def current_status(bundle: Bundle) -> Status:
    """As its keeper says; where none runs, as the last one left it."""
    with open_keeper(bundle) as keeper:
        if keeper is not None:
            try:
                return keeper.status()
            except KeeperGone:
                pass
    manifest, record = bundle.manifest, read_record(bundle)
    image = Image(name=manifest.name, version=manifest.version, architecture=manifest.architecture)
    if record is None:
        return Status(bundle=str(bundle.path), state=MachineState.STOPPED, message="it was never started", image=image)
    ended = record.state if record.state in (MachineState.STOPPED, MachineState.CRASHED) else MachineState.CRASHED
    message = record.message if ended is record.state else how_it_ended(bundle).message
    return Status(bundle=str(bundle.path), state=ended, message=message, since=record.at, image=image)


def _runs(bundle: Bundle) -> bool:
    """Whether a keeper has it; one that is just taking it is waited for."""
    deadline = time.monotonic() + _JOIN_S
    while True:
        with open_keeper(bundle) as keeper:
            if keeper is not None:
                return True
        if not is_held(bundle):
            return False
        if time.monotonic() > deadline:
            raise Trouble(
                "already_running",
                f"{bundle.path} is held by a process that does not answer",
                remedy="see who it is: the number in run/lock",
            )
        time.sleep(0.1)


def _start(bundle: Bundle) -> None:
    try:
        with showing_progress() as progress:
            start_keeper(bundle, progress)
    except Trouble as trouble:
        if trouble.code != "already_running" or not _runs(bundle):
            raise
        say("somebody else is starting it: joined")  # two at once, and the other was first


def _await_unlock(bundle: Bundle) -> None:
    """The keeper ends a moment after its machine; whoever comes next may take the bundle."""
    deadline = time.monotonic() + _JOIN_S
    while is_held(bundle) and time.monotonic() < deadline:
        time.sleep(0.05)


def _after(status: Status) -> str:
    return "" if status.ready_after_s is None else f" after {status.ready_after_s:.1f} s"


def _print_status(status: Status) -> None:
    from host_stub.logs import escape

    since = "" if status.since is None else time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(status.since))
    image = "" if status.image is None else f"{status.image.name} {status.image.version} ({status.image.architecture})"
    rows = [
        ("machine", status.bundle),
        ("image", image),
        ("state", f"{status.state.value}{since}"),
        ("", status.message),
        ("ready", "" if status.ready_after_s is None else f"{status.ready_after_s:.1f} s after its start"),
        ("coworkd", status.version),
        ("waiting", status.waiting_for or ""),
        ("process", "" if status.pid is None else f"{status.pid} ({status.backend}), keeper {status.keeper_pid}"),
        ("restarts", str(status.restarts) if status.restarts else ""),
        ("address", status.uri or ""),
        *((f"without {part}", why) for part, why in status.degraded.items()),
    ]
    for label, value in rows:
        if value:
            print(f"{escape(label, 80):<10} {escape(value, 2000)}")
