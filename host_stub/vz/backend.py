"""VZ as a `Backend`: check what is here, start the process that owns VZ's objects, give the machine its sockets, own it until it ends.

    cowork-vm's keeper ─ VzBackend ┬ process: python -m host_stub.vz ══ control ══ ProcessLink
                                   ├ Hybrid at spec.vsock             (trio, here)
                                   └ Console: spec.serial_log, spec.console   (trio, here)

Rules
- The process ends with this one: its control socket ends. Cancelled, it is killed, and the guest ends with it.
- A start that fails leaves nothing: no process, no socket file.
- The end is told once, by what was seen first: the kernel's panic on the console, a kill that was asked for, VZ's word, the process's exit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import trio

from host_stub.qemu.sockets import check_length, listen_at
from host_stub.vz.console import Console, SerialLog
from host_stub.vz.host import Host, judge, look_at_host
from host_stub.vz.kernel import check_kernel
from host_stub.vz.running import VzMachine, spawn
from host_stub.vz.words import Done, Start
from host_stub.words import DIAL_PORT, EGRESS_PORT, MachineSpec, Running, Trouble

START_S = 60.0
_LAST_WORDS_S = 3.0
GUEST_PORTS = (EGRESS_PORT, DIAL_PORT)
"""The host's vsock ports the guest may dial; VZ wants a listener for each."""
COMMAND = (sys.executable, "-m", "host_stub.vz")


class VzBackend:
    """`on_wake` is told when the Mac has slept. `host` and `command` stand in for this host in tests."""

    name: Literal["qemu", "vz"] = "vz"

    def __init__(
        self,
        *,
        on_wake: Callable[[], None] | None = None,
        guest_ports: Sequence[int] = GUEST_PORTS,
        host: Callable[[], Host] = look_at_host,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._on_wake = on_wake
        self._guest_ports = tuple(guest_ports)
        self._look = host
        self._seen: Host | None = None
        """Looked at once: it takes programs to be run, and what is signed meanwhile counts for the next process."""
        self._command = tuple(command)

    def check(self, spec: MachineSpec) -> None:
        self._seen = self._seen or self._look()
        judge(self._seen, spec)
        check_length(spec.vsock.with_name(f"{spec.vsock.name}_65535"))
        if spec.boot == "kernel":
            if spec.kernel is None:
                raise Trouble("no_kernel", "the machine has no kernel", remedy="verify the bundle, or boot it by EFI")
            check_kernel(spec.kernel, spec.architecture)
            if spec.initrd is not None:
                _check_file(spec.initrd, writable=False)
        for disk in spec.disks:
            _check_file(disk.path, writable=not disk.read_only)
        for share in spec.shares:
            if not share.path.is_dir():
                raise Trouble("no_share", f"{share.path} is no directory", remedy="make it, or take the share away")

    async def start(self, spec: MachineSpec, nursery: trio.Nursery) -> Running:
        self.check(spec)
        machine: VzMachine = await nursery.start(self._live, spec)
        return machine

    async def _live(self, spec: MachineSpec, *, task_status: trio.TaskStatus[VzMachine]) -> None:
        trouble: Trouble | None = None
        machine: VzMachine | None = None
        with contextlib.ExitStack() as owned:
            listener = _listen(owned, spec.vsock)
            console_listener = None if spec.console is None else _listen(owned, spec.console)
            try:
                async with trio.open_nursery() as nursery:
                    try:
                        machine = await self._bring_up(spec, nursery, console_listener)
                        nursery.start_soon(machine.hybrid.serve, listener)
                    except Trouble as error:
                        trouble = error
                    else:
                        task_status.started(machine)
                        await machine.until_ended()
                        with trio.move_on_after(_LAST_WORDS_S):
                            await machine.console_ended.wait()
                    nursery.cancel_scope.cancel()
            finally:
                if machine is not None:
                    machine.finish()
        if trouble is not None:
            raise trouble

    async def _bring_up(
        self, spec: MachineSpec, nursery: trio.Nursery, console_listener: socket.socket | None
    ) -> VzMachine:
        spec.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                process = await spawn(list(self._command), theirs.fileno())
            except BaseException:
                ours.close()
                raise
        machine = VzMachine(process, ours, self._on_wake)
        await nursery.start(machine.run)
        typed_read, typed_write = os.pipe()
        shown_read, shown_write = os.pipe()
        try:
            console = Console(shown_read, typed_write, SerialLog(spec.serial_log), machine.see_panic)
            machine.console_ended = console.ended
            nursery.start_soon(console.run, console_listener)
            with trio.fail_after(START_S):
                request = Start(id=0, spec=spec, guest_ports=self._guest_ports)
                answer, _ = await machine.link.ask(request, Done, (typed_read, shown_write))
            machine.notes = answer.notes
        except Trouble as error:
            raise await _with_last_words(machine, error) from error
        except trio.TooSlowError as error:
            raise Trouble(
                "vz_slow", f"VZ did not start the machine in {START_S:.0f} s", remedy="start it again"
            ) from error
        finally:
            os.close(typed_read)
            os.close(shown_write)
        return machine


async def _with_last_words(machine: VzMachine, trouble: Trouble) -> Trouble:
    """A process that ended instead of answering has said why on its stderr."""
    if trouble.code != "vz_process_ended":
        return trouble
    with trio.move_on_after(_LAST_WORDS_S):
        await machine.until_ended()
    said = machine.last_words() or trouble.message
    return Trouble(trouble.code, f"VZ's process ended before the machine started: {said}", remedy=trouble.remedy)


def _listen(owned: contextlib.ExitStack, path: Path) -> socket.socket:
    listener = owned.enter_context(listen_at(path))
    owned.callback(path.unlink, missing_ok=True)
    return listener


def _check_file(path: Path, *, writable: bool) -> None:
    if not path.is_file():
        raise Trouble("missing_file", f"{path} is not there", remedy="verify the bundle")
    if not os.access(path, os.R_OK | (os.W_OK if writable else 0)):
        raise Trouble("missing_file", f"{path} may not be {'written' if writable else 'read'}", remedy="give it to you")
