"""Waiting for a machine to be up: its events are told as they come, and its end is a trouble with the last lines it said."""

from __future__ import annotations

import time
from collections.abc import Callable

from host_stub.bundle import Bundle
from host_stub.keeper_client import KeeperClient, KeeperGone, open_keeper
from host_stub.keeper_lock import read_record
from host_stub.keeper_words import Status
from host_stub.words import MachineEvent, MachineState, Trouble

WAIT_S = 10.0
_UP = (MachineState.READY, MachineState.DEGRADED)
_OVER = (MachineState.CRASHED, MachineState.STOPPED)
_LOGS = "read the console: cowork-vm logs serial; check what is there: cowork-vm doctor"


def wait_until_up(
    bundle: Bundle,
    tell: Callable[[MachineEvent], None],
    *,
    limit_s: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Status:
    """The status of a machine that is ready, or ready with something that does not work.

    Raises `Trouble`: `crashed` and `stopped` where it ended, `not_ready` after `limit_s`, and then it goes on starting.
    """
    deadline = None if limit_s is None else monotonic() + limit_s
    with open_keeper(bundle) as keeper:
        if keeper is None:
            raise how_it_ended(bundle)
        try:
            return _follow(keeper, tell, deadline, monotonic)
        except KeeperGone:
            raise how_it_ended(bundle) from None


def _follow(
    keeper: KeeperClient,
    tell: Callable[[MachineEvent], None],
    deadline: float | None,
    monotonic: Callable[[], float],
) -> Status:
    after = 0
    while True:
        left_s = WAIT_S if deadline is None else min(WAIT_S, max(0.0, deadline - monotonic()))
        events, _ = keeper.events(after=after, wait_s=left_s)
        for event in events:
            after = event.seq
            tell(event)
            if event.state in _OVER:
                raise _ended(event.state, event.message, event.details.get("serial"))
        status = keeper.status()
        if status.state in _UP and status.last_seq <= after:
            return status
        if deadline is not None and monotonic() >= deadline:
            raise Trouble(
                "not_ready",
                f"the machine is not ready yet; it is {status.state.value}: {status.message}",
                remedy="it goes on starting: see cowork-vm status, or wait longer with --wait",
            )


def how_it_ended(bundle: Bundle) -> Trouble:
    """What the last keeper wrote down about the end of its machine."""
    record = read_record(bundle)
    if record is None:
        return Trouble("not_running", f"the machine {bundle.path} does not run", remedy="start it: cowork-vm up")
    if record.state in _OVER:
        return _ended(record.state, record.message, record.details.get("serial"))
    return Trouble(
        "keeper_killed",
        f"the keeper was killed while the machine was {record.state.value}; the machine ended with it",
        remedy="start it again: cowork-vm up",
    )


def _ended(state: MachineState, message: str, serial: object) -> Trouble:
    lines = [str(line) for line in serial] if isinstance(serial, list | tuple) else []
    if state is MachineState.CRASHED:
        return Trouble("crashed", message, remedy=_LOGS, details={"serial": lines})
    return Trouble("stopped", message, remedy="start it again: cowork-vm up", details={"serial": lines})
