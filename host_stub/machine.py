"""A machine: started, followed, started again where that is due, and stopped within a budget. Over any back end and any link to the guest.

    run ─ prepare ─ backend.start ─┬ guest.run ─ news ─▶ Life ─▶ state, events
                                   ├ a look every second: late? silent? overdue?
                                   └ running.wait ─ ended ─▶ stopped · crashed · again

Rules
- `run` owns everything of the machine and ends with it; cancelled, the machine is killed. Nothing of a life outlives it.
- Only a guest that was heard of and has gone silent is ended for it, and only as often as `RestartBudget` allows. What nobody has heard
  of is waited for: for ever (`machine_life`).
- A guest that its back end holds, for want of room on the host, is neither late nor hung: it is told, and goes on by itself.
- A stop has one budget: coworkd is asked (again, while there is no link to it), then the
  power button, then the machine is killed. It never fails, and it may be
  asked for at any time, also while the machine is being prepared.
- A trouble before the guest's first instruction is raised from `run`; afterwards it is an event and a state.

Not here: files and processes of the host (`keeper`), what a hypervisor is (`qemu`, `vz`), what is said to coworkd (`guest_link`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from coworkd.client import aio
from coworkd.client.aio import AsyncClient
from coworkd.model.errors import CoworkError
from coworkd.wire.endpoint import HybridEndpoint
from host_stub.bundle_settings import RestartMode
from host_stub.machine_events import EventRing
from host_stub.machine_life import Life, RestartBudget, Said, judge_end
from host_stub.words import RPC_PORT, Backend, Ended, Guest, MachineSpec, MachineState, Running, TellsHalts, Trouble

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # type: ignore[import-not-found,unused-ignore]

LOOK_S = 1.0
STOP_BUDGET_S = 45.0
ASKED_SHARE = 0.75
"""So much of a stop's budget is coworkd's own; the rest is for the power button."""
ASK_AGAIN_S = 2.0
SERIAL_LINES = 20

Prepare = Callable[[], Awaitable[MachineSpec]]
Tail = Callable[[int], Awaitable[list[str]]]


class Machine:
    """Made once; `run` once."""

    def __init__(
        self,
        *,
        prepare: Prepare,
        backend: Backend,
        guest: Callable[[MachineSpec], Guest],
        events: EventRing,
        serial: Tail,
        restart: RestartMode = "hung",
    ) -> None:
        """`prepare` checks the bundle before every start; `guest` makes a link for one life; `serial` gives its last lines."""
        self.events = events
        self.state = MachineState.STOPPED
        self.restarts = 0
        self._prepare = prepare
        self._backend = backend
        self._make_guest = guest
        self._serial = serial
        self._budget = RestartBudget(restart)
        self._ends_hung = restart != "never"
        self._life: Life | None = None
        self._running: Running | None = None
        self._guest: Guest | None = None
        self._spec: MachineSpec | None = None
        self._stopping = False
        self._again = False
        """A restart was asked for: the life that ends now is followed by another."""
        self._overdue = False
        self._refusal: str | None = None
        self._starting = trio.CancelScope()
        self._over = trio.Event()

    # -- what is known

    @property
    def is_running(self) -> bool:
        return self._running is not None

    @property
    def is_over(self) -> bool:
        """Whether `run` has ended: this machine will not run again."""
        return self._over.is_set()

    @property
    def running(self) -> Running | None:
        """The life that goes on now, as the back end gave it."""
        return self._running

    @property
    def pid(self) -> int | None:
        return None if self._running is None else self._running.pid

    @property
    def halted(self) -> str | None:
        """Why the back end holds the guest still; None where it does not."""
        return self._running.halted if isinstance(self._running, TellsHalts) else None

    @property
    def life(self) -> Life | None:
        """The present life, or the last."""
        return self._life

    async def connect(self, *, client_name: str = "cowork-vm", token: str | None = None) -> AsyncClient:
        """A client of the guest's coworkd; the caller closes it. Raises `Trouble` where there is no guest that answers."""
        if self._spec is None or self._running is None:
            raise Trouble("not_running", "the machine does not run", remedy="start it: cowork-vm up")
        try:
            uri = str(HybridEndpoint(path=str(self._spec.vsock), port=RPC_PORT))
            return await aio.connect(uri, token=token, client_name=client_name)
        except CoworkError as error:
            raise Trouble("no_answer", error.message, remedy="wait until it is ready: cowork-vm status") from error

    # -- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the machine, and return when it is stopped or has crashed for good: see `state`. Raises `Trouble` if it never started.

        `started` once the guest runs, long before it answers.
        """
        try:
            first = True
            while True:
                again = await self._live(task_status if first else None)
                if not again:
                    return
                self._again, self._overdue, first = False, False, False
                self.restarts += 1
        finally:
            self._over.set()

    async def _live(self, task_status: trio.TaskStatus[None] | None) -> bool:
        """One life; whether another is to follow."""
        self._life = None
        self._tell(Said("the machine is being started", MachineState.STARTING))
        ended: Ended | None = None
        trouble: Trouble | None = None
        try:
            async with trio.open_nursery() as nursery:
                if not await self._start(nursery):
                    self._tell(Said("the start was called off", MachineState.STOPPED))
                    if task_status is not None:
                        task_status.started()
                    return False
                if task_status is not None:
                    task_status.started()
                    task_status = None
                ended = await self._follow(nursery)
        except (Exception, BaseExceptionGroup) as error:
            trouble = trouble_in(error)
            if trouble is None:
                raise
        finally:
            self._running, self._guest = None, None
        if trouble is not None and task_status is not None:
            self._tell(Said(trouble.message, MachineState.STOPPED))
            raise trouble
        return await self._judge(ended or Ended(how="failed", message=str(trouble or "its start failed")))

    async def _start(self, nursery: trio.Nursery) -> bool:
        """False where a stop was asked for meanwhile."""
        with trio.CancelScope() as self._starting:
            if self._stopping:
                return False
            self._spec = await self._prepare()
            self._backend.check(self._spec)
            # The back end's own tasks are the nursery's: a start that is called off ends with what it started.
            self._running = await self._backend.start(self._spec, nursery)
        if self._starting.cancelled_caught:
            nursery.cancel_scope.cancel()
            return False
        return True

    async def _follow(self, nursery: trio.Nursery) -> Ended:
        assert self._running is not None
        assert self._spec is not None
        life = self._life = Life(trio.current_time())
        self._tell(Said("the guest is starting", None, {"pid": self._running.pid}))
        guest = self._guest = self._make_guest(self._spec)
        await nursery.start(guest.run, lambda news: self._tell(life.news(news, trio.current_time()), kind="guest"))
        nursery.start_soon(self._look_after, life)
        ended = await self._running.wait()
        nursery.cancel_scope.cancel()
        return ended

    async def _look_after(self, life: Life) -> None:
        told: str | None = None
        lost: str | None = None
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            halted = self.halted
            if halted is not None:
                life.halted(now)
            if halted != told:
                told = halted
                said = f"the guest stands still, {halted}: make room, and it goes on" if halted else "the guest goes on"
                self._tell(Said(said), kind="trouble")
            if isinstance(self._running, TellsHalts) and self._running.lost != lost:
                lost = self._running.lost
                self._tell(Said(f"{lost}: the guest has that no more until cowork-vm restart"), kind="trouble")
            if not life.greeted:
                lines = await self._serial(1)
                self._tell(life.late(now, lines[-1] if lines else ""), kind="progress")
            self._tell(life.silent(now))
            if self._ends_hung and life.overdue(now) and not self._stopping and not self._overdue:
                self._overdue = True
                self._tell(Said("the guest is hung: it is ended"), kind="trouble")
                await self._end_now()

    async def _judge(self, ended: Ended) -> bool:
        if self._stopping:
            self._tell(Said("the machine has stopped", MachineState.STOPPED, {"how": ended.how}))
            return False
        if self._again:
            self._tell(Said("the machine is started again, as was asked"))
            return True
        said = judge_end(ended, await self._serial(SERIAL_LINES))
        if said.state is MachineState.STOPPED:
            self._tell(said)
            return False
        cause = MachineState.HUNG if self._overdue else said.state
        if self._overdue:
            said = Said("the guest was hung, and was ended", MachineState.CRASHED, said.details)
        if self._budget.spend(cause, trio.current_time()):
            self._tell(Said(f"{said.message}; it is started again", None, said.details), kind="trouble")
            return True
        self._tell(Said(said.message, MachineState.CRASHED, said.details), kind="trouble")
        return False

    # -- what is asked of it

    async def stop(self, *, budget_s: float = STOP_BUDGET_S, reason: str = "asked on the host") -> None:
        """Stop it within `budget_s`, gracefully if the guest will; returns when it has stopped. Also good where it does not run."""
        self._stopping = True
        self._starting.cancel()
        await self._press(budget_s, reason)
        await self._over.wait()

    async def kill(self) -> None:
        """End it now."""
        self._stopping = True
        self._starting.cancel()
        await self._end_now()
        await self._over.wait()

    async def restart(self, *, budget_s: float = STOP_BUDGET_S, reason: str = "asked on the host") -> None:
        """Stop the present life and begin another. Returns when the old one has ended. Raises `Trouble` where none is there."""
        if self._running is None or self._stopping:
            raise Trouble("not_running", "the machine does not run", remedy="start it: cowork-vm up")
        self._again = True
        await self._press(budget_s, reason)

    async def _press(self, budget_s: float, reason: str) -> None:
        """Ask coworkd, press the power button, kill: each when the one before did not do."""
        running, guest = self._running, self._guest
        if running is None:
            return
        self._tell(Said(f"the machine is being stopped: {reason}", MachineState.STOPPING))
        deadline = trio.current_time() + budget_s
        with trio.move_on_at(deadline):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ended, running, nursery.cancel_scope)
                agreed = guest is not None and await self._ask(guest, budget_s * ASKED_SHARE, reason)
                if agreed:
                    await trio.sleep_until(deadline - budget_s * (1 - ASKED_SHARE))
                # What a hypervisor says to it does not matter: the machine is killed when the budget is over.
                with contextlib.suppress(Trouble):
                    await running.request_stop()
                while guest is not None and not agreed:
                    await trio.sleep(ASK_AGAIN_S)
                    left_s = deadline - trio.current_time()
                    agreed = await self._ask(guest, left_s * ASKED_SHARE, reason)
                await trio.sleep_forever()
            return
        self._tell(Said(f"the guest has not stopped in {budget_s:.0f} s: it is ended"), kind="trouble")
        await _kill(running)

    async def _ask(self, guest: Guest, budget_s: float, reason: str) -> bool:
        """Whether coworkd has agreed to power off; why it has not is told once."""
        refusal = await guest.shutdown(budget_s=budget_s, reason=reason)
        if refusal is not None and refusal != self._refusal:
            self._refusal = refusal
            self._tell(Said(refusal), kind="progress")
        return refusal is None

    async def _end_now(self) -> None:
        if self._running is not None:
            await _kill(self._running)

    def _tell(self, said: Said | None, kind: str = "state") -> None:
        if said is None:
            return
        if said.state is not None and not (self._stopping and said.state in _LIVING):
            self.state = said.state
            self.events.add("state", said.message, state=said.state, details=said.details)
        else:
            self.events.add(_KINDS[kind], said.message, details=said.details)


_LIVING = (MachineState.CONNECTED, MachineState.READY, MachineState.DEGRADED, MachineState.HUNG)
"""States that a guest's news bring: they do not undo that the machine is being stopped."""
_KINDS: dict[str, Any] = {"state": "progress", "guest": "guest", "progress": "progress", "trouble": "trouble"}


async def _ended(running: Running, scope: trio.CancelScope) -> None:
    await running.wait()
    scope.cancel()


async def _kill(running: Running) -> None:
    """As `Running.kill`; a hypervisor that refuses because the machine has ended by itself is right."""
    try:
        await running.kill()
    except Trouble:
        with trio.move_on_after(LOOK_S):
            await running.wait()


def trouble_in(error: BaseException) -> Trouble | None:
    """The one trouble that a nursery raised, alone or in groups; None where there is anything else in it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        found = [trouble_in(each) for each in error.exceptions]
        return found[0] if all(each is not None for each in found) else None
    return error if isinstance(error, Trouble) else None
