"""The process that owns one running machine: `python -m host_stub.keeper BUNDLE`.

    lock ─ what a killed keeper left ─ control socket ─ way out ─ machine ─ … until it has stopped or crashed ─ record, unlock

Rules
- It holds the bundle's lock as long as it lives. When it ends, however, the machine ends: the back end sees to that.
- SIGTERM and SIGINT stop the machine gracefully, a second one kills it. Whoever started it may go away.
- What goes wrong before the guest runs is told on the pipe to who started it (`keeper_report`), and to nobody twice.
- A guest never ends it: news are bounded, logs are bounded, and what the guest writes on its serial console is bounded too.

Not here: starting it (`keeper_start`), what is asked of it from outside (`keeper_client`).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from host_stub import guest_health, session_disk
from host_stub.backends import choose_backend
from host_stub.bundle import Bundle, open_bundle
from host_stub.egress import HostEgress
from host_stub.egress_rules import EgressOptions
from host_stub.guest_link import GuestLink
from host_stub.keeper_diary import Diary
from host_stub.keeper_lock import hold_lock, settle_predecessor
from host_stub.keeper_report import Reporter
from host_stub.keeper_server import KeeperServer, Method
from host_stub.keeper_words import (
    EventsAnswer,
    EventsParams,
    GrowParams,
    Image,
    NoParams,
    Status,
    StopParams,
)
from host_stub.logs import BoundedLog
from host_stub.machine import Machine, trouble_in
from host_stub.machine_events import EventRing
from host_stub.serial_log import SerialLog
from host_stub.words import EGRESS_PORT, SESSION_DISK_SERIAL, Backend, GrowsDisks, MachineSpec, MachineState, Trouble

BOUND_S = 5.0
"""How often the serial log's size is looked at."""
MAX_WAIT_S = 60.0
MAX_EVENTS = 96
"""As many of the largest fit into one answer: of 4 MiB, and of 65,536 values."""
LAST_LOOK_S = 0.5
"""So long those who follow the events have to see the last one before their link ends."""
FAILED_STATUS = 1

_log = logging.getLogger("cowork-vm.keeper")


class Keeper:
    """Everything of one running machine. `run` once, under the lock."""

    def __init__(self, bundle: Bundle, reporter: Reporter, *, backend: Backend | None = None) -> None:
        """Raises `Trouble` for settings that cannot be here."""
        self.bundle = bundle
        self.events = EventRing()
        self._reporter = reporter
        self._serial = SerialLog(bundle.serial_log)
        self._backend = backend or choose_backend(bundle.settings)
        self._guest: GuestLink | None = None
        self._coworkd_log = BoundedLog(bundle.logs / "coworkd.log")
        self._egress_log = BoundedLog(bundle.logs / "egress.log", as_note=False)
        self._growing = trio.Lock()
        self.machine = Machine(
            prepare=self._prepare,
            backend=self._backend,
            guest=self._link,
            events=self.events,
            serial=self._tail,
            restart=bundle.settings.restart,
        )
        self._diary = Diary(bundle, self.machine, self.events)
        self._egress = HostEgress(
            bundle.run / f"{bundle.vsock.name}_{EGRESS_PORT}", _egress_options(bundle), log=self._egress_log
        )

    async def run(self) -> MachineState:
        """Run the machine to its end; the state it ended in. Raises `Trouble` where it never started."""
        server = KeeperServer(self.bundle.keeper_socket, self._methods(), boot_id=uuid.uuid4().hex)
        try:
            async with _flattened(), trio.open_nursery() as nursery:
                await nursery.start(server.run)
                await nursery.start(self._egress.run)
                nursery.start_soon(self._diary.serve)
                nursery.start_soon(self._bound_serial_log)
                await nursery.start(self._heed_signals)
                left = await trio.to_thread.run_sync(settle_predecessor, self.bundle)
                if left is not None:
                    self.events.add("trouble", left)
                await self._run_machine()
                await self._diary.flush()
                await trio.sleep(LAST_LOOK_S)
                nursery.cancel_scope.cancel()
        finally:
            await self._diary.flush()
            for log in (self._diary, self._coworkd_log, self._egress_log):
                log.close()
        return self.machine.state

    async def _run_machine(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.machine.run)
            await self._diary.flush()
            self._reporter.started(self.machine.pid or 0)

    # -- what the machine leans on

    async def _prepare(self) -> MachineSpec:
        """Check the bundle as it is now; what was mended is told."""
        self._serial.mark()
        bundle = open_bundle(self.bundle.path)
        for said in await trio.to_thread.run_sync(bundle.check, self._progress):
            self.events.add("trouble", said)
        await self._diary.flush()  # whoever finds this keeper killed must find that it was about to start
        return bundle.spec()

    def _progress(self, what: str, done: int, total: int) -> None:
        """In the thread that checks: told to who waits, and where a stop is found out."""
        trio.from_thread.check_cancelled()
        self._reporter.progress(what, done, total)

    def _link(self, _spec: MachineSpec) -> GuestLink:
        self._guest = GuestLink(
            self.bundle.uri, log=self._coworkd_log, look=functools.partial(guest_health.look, self.bundle.health)
        )
        return self._guest

    async def _tail(self, count: int) -> list[str]:
        return await trio.to_thread.run_sync(self._serial.tail, count)

    async def _bound_serial_log(self) -> None:
        while True:
            await trio.sleep(BOUND_S)
            if await trio.to_thread.run_sync(self._serial.bound):
                self.events.add("log", "the serial log was too long: its beginning was let go")

    async def _heed_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async with trio.open_nursery() as nursery:
                name = signal.Signals(await signals.__anext__()).name
                nursery.start_soon(functools.partial(self.machine.stop, reason=f"the keeper got {name}"))
                async for _ in signals:
                    nursery.start_soon(self.machine.kill)

    # -- what is asked of it

    def _methods(self) -> dict[str, Method]:
        return {
            "status": Method(params=NoParams, call=self._status),
            "events": Method(params=EventsParams, call=self._events),
            "stop": Method(params=StopParams, call=self._stop),
            "kill": Method(params=NoParams, call=self._kill),
            "restart": Method(params=StopParams, call=self._restart),
            "grow": Method(params=GrowParams, call=self._grow),
        }

    async def _status(self, _params: NoParams) -> Status:
        return self.status()

    def status(self) -> Status:
        """The machine as it is now."""
        machine, life, manifest = self.machine, self.machine.life, self.bundle.manifest
        last = self.events.last_state
        return Status(
            bundle=str(self.bundle.path),
            state=machine.state,
            message=last.message if last is not None else "",
            since=last.at if last is not None else None,
            pid=machine.pid,
            keeper_pid=os.getpid(),
            backend=self._backend.name,
            uri=self.bundle.uri,
            waiting_for=machine.halted or (self._guest.waiting_for if self._guest is not None else None),
            ready_after_s=life.ready_after_s if life is not None else None,
            degraded=dict(life.degraded) if life is not None else {},
            boot_id=life.boot_id if life is not None else "",
            version=life.version if life is not None else "",
            restarts=machine.restarts,
            last_seq=self.events.last_seq,
            image=Image(name=manifest.name, version=manifest.version, architecture=manifest.architecture),
        )

    async def _events(self, params: EventsParams) -> EventsAnswer:
        with trio.move_on_after(min(max(params.wait_s, 0.0), MAX_WAIT_S)):
            await self.events.wait_after(params.after)
        events, missed = self.events.after(params.after, limit=max(1, min(params.limit, MAX_EVENTS)))
        return EventsAnswer(events=events, missed=missed)

    async def _stop(self, params: StopParams) -> Status:
        await self.machine.stop(budget_s=_budget(params.budget_s), reason=params.reason[:200])
        await self._diary.flush()
        return self.status()

    async def _kill(self, _params: NoParams) -> Status:
        await self.machine.kill()
        await self._diary.flush()
        return self.status()

    async def _restart(self, params: StopParams) -> Status:
        await self.machine.restart(budget_s=_budget(params.budget_s), reason=params.reason[:200])
        return self.status()

    async def _grow(self, params: GrowParams) -> dict[str, Any]:
        """Grow the disk under a running guest, where the back end can; the guest's file system is the caller's to grow."""
        async with self._growing:
            await trio.to_thread.run_sync(session_disk.check_growth, self.bundle.session_disk, params.size_bytes)
            running = self.machine.running
            if not isinstance(running, GrowsDisks):
                raise Trouble(
                    "is_running",
                    f"the back end {self._backend.name} cannot grow the disk of a running machine",
                    remedy="end it first (cowork-vm down), grow, and start it again",
                )
            await running.grow_disk(SESSION_DISK_SERIAL, params.size_bytes)
            self.events.add("progress", f"the session disk has {params.size_bytes} bytes now")
        return {"size_bytes": params.size_bytes}


def _budget(asked_s: float) -> float:
    return min(asked_s, 3600.0) if asked_s > 0.0 else 0.0  # no number is none as well


def _egress_options(bundle: Bundle) -> EgressOptions:
    egress = bundle.settings.egress
    return EgressOptions(
        settings=None if egress.settings is None else Path(egress.settings),
        parent=egress.parent,
        allow_private=egress.allow_private,
        allow_addresses=egress.allow_addresses,
    )


@contextlib.asynccontextmanager
async def _flattened() -> AsyncIterator[None]:
    """A `Trouble` that comes out of nurseries comes out as itself."""
    try:
        yield
    except Exception as error:
        trouble = trouble_in(error)
        if trouble is None or trouble is error:
            raise
        raise trouble from None


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the machine has stopped, 1 where it has crashed or never started."""
    parser = argparse.ArgumentParser(prog="python -m host_stub.keeper", description="Own one running machine.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--report-fd", type=int, help="a pipe to tell on how the start goes")
    args = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    reporter = Reporter(args.report_fd)
    os.umask(0o077)
    try:
        bundle = open_bundle(args.bundle)
        with hold_lock(bundle):
            state = trio.run(Keeper(bundle, reporter).run)
    except Trouble as trouble:
        reporter.failed(trouble)
        _log.error("%s (%s)", trouble.message, trouble.remedy)
        return FAILED_STATUS
    return 0 if state is MachineState.STOPPED else FAILED_STATUS


if __name__ == "__main__":
    sys.exit(main())
