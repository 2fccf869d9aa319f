"""One running machine: its QEMU, what runs beside it, and how it ended.

`live` owns all of it. It returns when QEMU has ended and everything beside it was ended too; cancelled, it kills the machine first.
When our vsock device ends, the machine is of no use to anybody and is ended (`failed`). When a virtiofsd ends, the machine stays, and
that is told: what the guest reads there waits until the machine is started again.

A disk that the host has no room for stops the guest in the midst of a write, by QEMU's own rule (werror=enospc): nothing is lost, and the
guest is told no error. It is let go on every `GO_ON_S`, and once it goes for `SETTLED_S` it is not halted any more.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import trio

from host_stub.qemu.processes import Child
from host_stub.qemu.qmp import QmpEvent
from host_stub.qemu.qmp_client import QmpClient
from host_stub.words import Disk, Ended, Trouble

TAIL_BYTES = 64 << 10
GO_ON_S, SETTLED_S = 5.0, 3.0
_PANIC = re.compile(r"Kernel panic - not syncing[^\r\n]*")
_REASONS = {"guest-shutdown": "powered_off", "guest-reset": "reset", "guest-panic": "panicked"}


class QemuMachine:
    """What `Backend.start` gives. Made by `host_stub.qemu.backend`, which runs `live`."""

    def __init__(
        self,
        qemu: Child,
        client: QmpClient,
        watched: Sequence[Child],
        serial_log: Path,
        disks: Sequence[Disk] = (),
        *,
        missed: Sequence[Child] = (),
    ) -> None:
        """`disks` as they were given to `compose_command`, which calls them disk0, disk1 … `missed`: what it can go on without."""
        self._qemu = qemu
        self.client = client
        self._watched = watched
        self._serial_log = serial_log
        self._disks = tuple(disks)
        self._serial_from = size_of(serial_log)
        self.halted: str | None = None
        """See `words.TellsHalts`."""
        self.lost: str | None = None
        self._missed = missed
        self._halts = 0
        self._reason: str | None = None
        self._panicked = False
        self._killed = False
        self._failed: str | None = None
        self._ended: Ended | None = None
        self._done = trio.Event()

    @property
    def pid(self) -> int:
        return self._qemu.pid

    def see(self, event: QmpEvent) -> None:
        """Listen to QEMU."""
        if event.name == "SHUTDOWN":
            self._reason = str(event.data.get("reason"))
        elif event.name == "GUEST_PANICKED":
            self._panicked = True
        elif event.name == "BLOCK_IO_ERROR" and event.data.get("action") == "stop":
            self._halts += 1
            self.halted = (
                f"the host could not write its disk {self._disk_of(event)}: {str(event.data.get('reason'))[:200]}"
            )

    def _disk_of(self, event: QmpEvent) -> str:
        name = str(event.data.get("node-name") or event.data.get("device"))[:64]
        return next((disk.serial for index, disk in enumerate(self._disks) if name == f"disk{index}"), name)

    async def wait(self) -> Ended:
        await self._done.wait()
        assert self._ended is not None
        return self._ended

    async def request_stop(self) -> None:
        await self.client.execute("system_powerdown")

    async def kill(self) -> None:
        self._killed = True
        self._qemu.kill()
        await self._done.wait()

    async def pause(self) -> None:
        await self.client.execute("stop")

    async def resume(self) -> None:
        await self.client.execute("cont")

    async def grow_disk(self, serial: str, size_bytes: int) -> None:
        """See `words.GrowsDisks`. Only virtio tells a guest that its disk has grown."""
        found = [index for index, disk in enumerate(self._disks) if disk.serial == serial]
        if not found or self._disks[found[0]].bus != "virtio":
            raise Trouble(
                "is_running",
                f"the disk {serial} of a running machine cannot grow: it is not on the virtio bus",
                remedy="end the machine first (cowork-vm down), grow the disk, and start the machine again",
            )
        await self.client.execute("block_resize", {"node-name": f"disk{found[0]}", "size": size_bytes})

    async def until_ended(self) -> None:
        """Until QEMU has ended, by whatever."""
        async with trio.open_nursery() as nursery:
            for child in self._watched:
                nursery.start_soon(self._end_with, child)
            for child in self._missed:
                nursery.start_soon(self._miss, child)
            nursery.start_soon(self.go_on)
            await self._qemu.wait()
            nursery.cancel_scope.cancel()

    async def go_on(self) -> None:
        """Let a halted guest go on, again and again, until cancelled."""
        while True:
            await trio.sleep(GO_ON_S)
            if self.halted is None:
                continue
            before = self._halts
            with contextlib.suppress(Trouble):
                await self.client.execute("cont")
                await trio.sleep(SETTLED_S)
                if self._halts == before:
                    self.halted = None

    def finish(self, *, cancelled: bool = False) -> None:
        """QEMU has been reaped: tell all who wait."""
        status = self._qemu.status
        panic = find_panic(tail_of(self._serial_log, self._serial_from))
        if self._killed or cancelled or status is None:
            self._ended = Ended(how="killed", message="the machine was killed", exit_status=status)
        elif self._failed is not None:
            self._ended = Ended(how="failed", message=self._failed, exit_status=status)
        else:
            reason = "guest-panic" if self._panicked else self._reason
            self._ended = judge_end(reason, status, panic, self._qemu.last_lines())
        self._done.set()

    async def _miss(self, child: Child) -> None:
        status = await child.wait()
        self.lost = f"{child.name} ended with {status}"

    async def _end_with(self, child: Child) -> None:
        status = await child.wait()
        said = child.last_lines(1)
        self._failed = f"{child.name} ended with {status}" + (f": {said}" if said else "")
        self._qemu.kill()


def judge_end(reason: str | None, status: int, panic: str | None, said: str) -> Ended:
    """How a life ended that nobody here ended: by QEMU's reason, its exit status, the panic in the serial log. Pure."""
    how = _REASONS.get(reason or "")
    if how == "panicked" or (how == "reset" and panic is not None):
        return Ended(how="panicked", message=panic or "the guest's kernel panicked", exit_status=status)
    if how == "reset":
        return Ended(how="reset", message="the guest started anew, which ends the machine", exit_status=status)
    if how == "powered_off":
        return Ended(how="powered_off", message="the guest powered off", exit_status=status)
    if reason in ("host-signal", "host-qmp-quit"):
        return Ended(how="killed", message=f"QEMU was told to end ({reason})", exit_status=status)
    if status < 0:
        return Ended(how="failed", message=f"QEMU was ended by signal {-status}", exit_status=status)
    return Ended(how="failed", message=f"QEMU ended with {status}" + (f": {said}" if said else ""), exit_status=status)


def find_panic(text: str) -> str | None:
    """The last panic a serial log tells of."""
    found = _PANIC.findall(text)
    return str(found[-1]).strip() if found else None


def tail_of(path: Path, start: int) -> str:
    """The end of what was written to the file since it had `start` bytes."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start if end >= start else 0, end - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
