"""Keepers over a machine that is a process which waits: everything of the host stub but hypervisor and guest is the real thing.

`python -m tests.unit.host_stub.keeper_lab` is `python -m host_stub.keeper` with that back end. What the "guest" does is said by the
kernel command line of the bundle's settings: `dies`, `hangs` (heeds no power button) or nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import trio

from host_stub import keeper
from host_stub.bundle import Bundle
from host_stub.words import Ended, MachineSpec, Running, Trouble

# It ends with its standard input, as a machine of a real back end ends with its keeper.
_MACHINE = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == 'hangs' else signal.SIG_DFL); "
    "print('Linux boots', flush=True); sys.exit(3) if sys.argv[1] == 'dies' else None; sys.stdin.read()"
)


class ProcessMachine:
    """A `Running` and a `GrowsDisks` over a child."""

    def __init__(self, process: trio.Process, spec: MachineSpec) -> None:
        self._process = process
        self._spec = spec
        self._killed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> Ended:
        status = await self._process.wait()
        how: Any = "killed" if self._killed else "powered_off" if status == -signal.SIGTERM else "failed"
        return Ended(how=how, message=f"the process ended with {status}", exit_status=status)

    async def request_stop(self) -> None:
        self._process.terminate()
        await trio.lowlevel.checkpoint()

    async def kill(self) -> None:
        self._killed = True
        self._process.kill()
        await self._process.wait()

    async def pause(self) -> None:
        raise NotImplementedError

    async def resume(self) -> None:
        raise NotImplementedError

    async def grow_disk(self, serial: str, size_bytes: int) -> None:
        await trio.lowlevel.checkpoint()
        (disk,) = (disk for disk in self._spec.disks if disk.serial == serial)
        with disk.path.open("r+b") as file:
            file.truncate(size_bytes)


class ProcessBackend:
    """Starts them."""

    name: Literal["qemu", "vz"] = "qemu"

    def check(self, spec: MachineSpec) -> None:
        if "nothypervisor" in spec.command_line:
            raise Trouble("no_hypervisor", "there is no hypervisor", remedy="install one")

    async def start(self, spec: MachineSpec, nursery: trio.Nursery) -> Running:
        kind = spec.command_line.split()[-1]
        process: trio.Process = await nursery.start(self._own, spec.serial_log, kind)
        return ProcessMachine(process, spec)

    async def _own(self, serial_log: Path, kind: str, *, task_status: trio.TaskStatus[trio.Process]) -> None:
        with serial_log.open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", _MACHINE, kind], stdin=subprocess.PIPE, stdout=log
            )
        task_status.started(process)
        try:
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdin is not None
                await process.stdin.aclose()


def lab_command(bundle: Bundle, report_fd: int | None) -> list[str]:
    """Stands in for `keeper_start.keeper_command`."""
    report = [] if report_fd is None else ["--report-fd", str(report_fd)]
    return [sys.executable, "-m", "tests.unit.host_stub.keeper_lab", *report, str(bundle.path)]


def main() -> int:
    with mock.patch.object(keeper, "choose_backend", return_value=ProcessBackend()):
        return keeper.main()


if __name__ == "__main__":
    sys.exit(main())
