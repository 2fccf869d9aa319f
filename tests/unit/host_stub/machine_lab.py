"""A back end and a link to a guest that do what a test says, and a machine over them on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import trio
import trio.testing

from host_stub.bundle_settings import RestartMode
from host_stub.machine import Machine
from host_stub.machine_events import EventRing
from host_stub.words import Disk, Ended, GuestNews, MachineSpec, MachineState, Running, Trouble

SPEC = MachineSpec(
    architecture="x86_64",
    disks=(Disk(path=Path("/root.img"), serial="root"),),
    vsock=Path("/run/vsock.sock"),
    serial_log=Path("/logs/serial.log"),
    state_dir=Path("/state"),
)


class FakeRunning:
    """A machine that ends when it is told to."""

    def __init__(self, *, heeds_button: bool = True) -> None:
        self.pid = 4242
        self.halted: str | None = None
        self.lost: str | None = None
        self.asked: list[str] = []
        self._heeds_button = heeds_button
        self._over = trio.Event()
        self._ended: Ended | None = None

    def end(self, how: Any = "powered_off", message: str = "as told") -> None:
        if self._ended is None:
            self._ended = Ended(how=how, message=message)
            self._over.set()

    async def wait(self) -> Ended:
        await self._over.wait()
        assert self._ended is not None
        return self._ended

    async def request_stop(self) -> None:
        self.asked.append("button")
        await trio.lowlevel.checkpoint()
        if self._heeds_button:
            self.end()

    async def kill(self) -> None:
        self.asked.append("kill")
        self.end("killed")
        await self.wait()

    async def pause(self) -> None:
        raise NotImplementedError

    async def resume(self) -> None:
        raise NotImplementedError


class FakeBackend:
    """Starts `FakeRunning`s; each life ends when the nursery it was given does."""

    name: Literal["qemu", "vz"] = "qemu"

    def __init__(self) -> None:
        self.lives: list[FakeRunning] = []
        self.heeds_button = True
        self.refusal: Trouble | None = None
        self.start_s = 0.0
        self.helper_dies = False

    def check(self, spec: MachineSpec) -> None:
        assert spec is SPEC

    async def start(self, spec: MachineSpec, nursery: trio.Nursery) -> Running:
        await trio.sleep(self.start_s)
        if self.refusal is not None:
            raise self.refusal
        running = FakeRunning(heeds_button=self.heeds_button)
        self.lives.append(running)
        nursery.start_soon(self._beside, running)
        return running

    async def _beside(self, running: FakeRunning) -> None:
        try:
            if self.helper_dies:
                raise Trouble("helper_died", "the helper died", remedy="none")
            await trio.sleep_forever()
        finally:
            running.end("killed")


class FakeGuest:
    """A link whose news are the test's."""

    def __init__(self) -> None:
        self.tell: Callable[[GuestNews], None] = lambda _: None
        self.refusal: str | None = "no link"
        self.asked: list[tuple[float, str]] = []
        self.on_shutdown: Callable[[], None] = lambda: None

    async def run(
        self, tell: Callable[[GuestNews], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.tell = tell
        task_status.started()
        await trio.sleep_forever()

    async def shutdown(self, *, budget_s: float, reason: str) -> str | None:
        self.asked.append((budget_s, reason))
        await trio.lowlevel.checkpoint()
        self.on_shutdown()
        return self.refusal

    def connect(self, **degraded: str) -> None:
        self.tell(GuestNews(kind="connected", boot_id="b", version="1", degraded={"starting": "disk", **degraded}))

    def ready(self, **degraded: str) -> None:
        self.tell(GuestNews(kind="ready", boot_id="b", version="1", degraded=degraded))


class Lab:
    """One machine and everything it leans on."""

    def __init__(self, restart: RestartMode) -> None:
        self.backend = FakeBackend()
        self.guests: list[FakeGuest] = []
        self.prepared = 0
        self.prepare_s = 0.0
        self.prepare_trouble: Trouble | None = None
        self.serial = ["Linux version 6", "last words"]
        self.events = EventRing(wall=lambda: 0.0)
        self.outcome: Trouble | None = None
        self.machine = Machine(
            prepare=self._prepare,
            backend=self.backend,
            guest=self._guest,
            events=self.events,
            serial=self._tail,
            restart=restart,
        )

    async def _prepare(self) -> MachineSpec:
        self.prepared += 1
        await trio.sleep(self.prepare_s)
        if self.prepare_trouble is not None:
            raise self.prepare_trouble
        return SPEC

    def _guest(self, _spec: MachineSpec) -> FakeGuest:
        self.guests.append(FakeGuest())
        return self.guests[-1]

    async def _tail(self, count: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        return self.serial[-count:]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            await self.machine.run(task_status=task_status)
        except Trouble as trouble:
            self.outcome = trouble

    @property
    def running(self) -> FakeRunning:
        return self.backend.lives[-1]

    @property
    def guest(self) -> FakeGuest:
        return self.guests[-1]

    @property
    def states(self) -> list[str]:
        return [event.state.value for event in self.events.after(0)[0] if event.state is not None]

    def said(self, kind: str | None = None) -> list[str]:
        return [event.message for event in self.events.after(0)[0] if kind is None or event.kind == kind]

    async def until(self, state: MachineState) -> None:
        while self.machine.state is not state:
            await self.events.wait_after(self.events.last_seq)


@asynccontextmanager
async def open_lab(*, start: bool = True, restart: RestartMode = "hung") -> AsyncIterator[Lab]:
    """A lab whose machine runs, unless `start` is false; ended with the block."""
    lab = Lab(restart)
    async with trio.open_nursery() as nursery:
        if start:
            await nursery.start(lab.run)
            await trio.testing.wait_all_tasks_blocked()
        yield lab
        nursery.cancel_scope.cancel()


def play(script: Callable[[], Awaitable[None]]) -> None:
    """Run `script` on a clock that jumps when everybody sleeps."""
    trio.run(script, clock=trio.testing.MockClock(autojump_threshold=0))
