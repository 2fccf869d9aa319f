"""QEMU as a `Backend`: check what is here, start a machine, own it until it ends.

Order of a start: state directory, variable store (EFI), the vsock device, a virtiofsd for each share, QEMU stopped, its control link,
then `cont`. So no event of the guest is missed, and whatever fails is told with the last words of who failed, nothing left running.

Sources: qemu(1); `host_stub.qemu.command` for what is asked of it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import trio

from host_stub.qemu.accelerator import Choice, Evidence, choose_accelerator, look_for_evidence
from host_stub.qemu.command import Memory, Parts, compose_command
from host_stub.qemu.helpers import carries, start_virtiofsd, start_vsock
from host_stub.qemu.processes import Child, start_child
from host_stub.qemu.qmp_client import QmpClient
from host_stub.qemu.running import QemuMachine
from host_stub.qemu.sockets import check_length, clear_leftover
from host_stub.qemu.tools import find_firmware, find_qemu, find_virtiofsd, has_sandbox
from host_stub.words import Accelerator, Architecture, MachineSpec, Running, Trouble

_LONGEST_OWN_NAME = "share00.sock"
_LAST_WORDS_S = 5.0
_TROUBLES: tuple[tuple[str, str, str], ...] = (
    (r"get .?(shared )?\"?(write|consistent read)\"? lock", "disk_in_use", "end the machine that uses this disk"),
    (
        r"[Cc]annot allocate memory|cannot set up guest memory",
        "no_memory",
        "give the machine less memory, or end what uses it",
    ),
    (r"KVM|kvm.*(denied|failed)", "no_accelerator", "start it with the accelerator tcg"),
    (r"Address already in use", "socket_taken", "end the machine that uses this socket"),
    (r"No space left", "no_space", "make room on the disk"),
    (r"Could not open|No such file", "missing_file", "verify the bundle"),
)


class QemuBackend:
    """`accelerator` is a person's word; without it the evidence decides. `evidence` stands in for this host in tests."""

    name: Literal["qemu", "vz"] = "qemu"

    def __init__(
        self, *, accelerator: Accelerator | None = None, evidence: Callable[[], Evidence] = look_for_evidence
    ) -> None:
        self._wanted = accelerator
        self._evidence = evidence

    def choose(self, architecture: Architecture) -> Choice:
        """What a guest of this architecture runs on here, and why. Raises Trouble."""
        return choose_accelerator(architecture, self._evidence(), self._wanted)

    def check(self, spec: MachineSpec) -> None:
        find_qemu(spec.architecture)
        self.choose(spec.architecture)
        if spec.boot == "efi":
            find_firmware(spec.architecture)
        for path in (spec.state_dir / _LONGEST_OWN_NAME, spec.vsock.with_name(f"{spec.vsock.name}_65535")):
            check_length(path)
        for disk in spec.disks:
            _check_file(disk.path, writable=not disk.read_only)
        for file in (spec.kernel, spec.initrd):
            if spec.boot == "kernel" and file is not None:
                _check_file(file, writable=False)
        for share in spec.shares:
            if not share.path.is_dir():
                raise Trouble("no_share", f"{share.path} is no directory", remedy="make it, or take the share away")

    async def start(self, spec: MachineSpec, nursery: trio.Nursery) -> Running:
        self.check(spec)
        machine: QemuMachine = await nursery.start(self._live, spec)
        return machine

    async def _live(self, spec: MachineSpec, *, task_status: trio.TaskStatus[QemuMachine]) -> None:
        trouble: Trouble | None = None
        machine: QemuMachine | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    machine = await self._bring_up(spec, nursery)
                except Trouble as error:
                    trouble = error
                else:
                    task_status.started(machine)
                    await machine.until_ended()
                nursery.cancel_scope.cancel()
        finally:
            if machine is not None:
                machine.finish()
        if trouble is not None:
            raise trouble

    async def _bring_up(self, spec: MachineSpec, nursery: trio.Nursery) -> QemuMachine:
        spec.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if spec.console is not None:
            clear_leftover(spec.console)
        vsock_socket = spec.state_dir / "vsock.sock"
        device = start_vsock(vsock_socket, spec.cid, spec.vsock)
        nursery.start_soon(device.run)
        share_sockets = self._start_shares(spec, nursery)
        ours, theirs = socket.socketpair()
        with theirs:
            parts = self._parts(spec, vsock_socket, share_sockets, theirs.fileno())
            try:
                qemu = start_child("QEMU", compose_command(spec, parts), pass_fds=(theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        nursery.start_soon(qemu.run)
        client = QmpClient(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), lambda event: machine.see(event))
        machine = QemuMachine(qemu, client, [device], spec.serial_log)
        nursery.start_soon(client.run)
        try:
            await client.greet()
            await client.execute("cont")
        except Trouble as error:
            raise await _why(qemu, error) from error
        return machine

    def _start_shares(self, spec: MachineSpec, nursery: trio.Nursery) -> tuple[Path | None, ...]:
        daemon = find_virtiofsd() if spec.shares else None
        sockets: list[Path | None] = []
        for index, share in enumerate(spec.shares):
            if daemon is None or not carries(daemon, share):
                sockets.append(None)
                continue
            path = spec.state_dir / f"share{index}.sock"
            nursery.start_soon(start_virtiofsd(daemon, share, path).run)
            sockets.append(path)
        return tuple(sockets)

    def _parts(self, spec: MachineSpec, vsock: Path, shares: tuple[Path | None, ...], qmp_fd: int) -> Parts:
        firmware = find_firmware(spec.architecture) if spec.boot == "efi" else None
        return Parts(
            program=find_qemu(spec.architecture),
            accelerator=self.choose(spec.architecture).accelerator,
            qmp_fd=qmp_fd,
            vsock_socket=vsock,
            share_sockets=shares,
            firmware_code=None if firmware is None else firmware.code,
            firmware_variables=None if firmware is None else keep_variables(firmware.empty_variables, spec.state_dir),
            sandbox=has_sandbox(),
            memory=Memory() if sys.platform == "linux" else None,
        )


def keep_variables(empty: Path, state_dir: Path) -> Path:
    """The machine's own EFI variable store, copied from the empty one where it is not there; never a half one."""
    path = state_dir / "efi-variables.fd"
    if not path.exists():
        part = path.with_suffix(".part")
        shutil.copyfile(empty, part)
        part.chmod(0o600)
        part.replace(path)
    return path


def trouble_of(said: str, fallback: Trouble) -> Trouble:
    """What QEMU's last words mean; pure."""
    for pattern, code, remedy in _TROUBLES:
        if re.search(pattern, said):
            return Trouble(code, f"QEMU does not start: {said.splitlines()[-1]}", remedy=remedy, details={"said": said})
    if not said:
        return fallback
    return Trouble(
        "qemu_failed", f"QEMU does not start: {said.splitlines()[-1]}", remedy="see its words", details={"said": said}
    )


async def _why(qemu: Child, error: Trouble) -> Trouble:
    """QEMU closes its link a moment before it has ended and said why."""
    with trio.move_on_after(_LAST_WORDS_S):
        await qemu.wait()
    return trouble_of(qemu.last_lines(), error)


def _check_file(path: Path, *, writable: bool) -> None:
    if not path.exists():
        raise Trouble("missing_file", f"{path} is not there", remedy="verify the bundle")
    if not os.access(path, os.R_OK | (os.W_OK if writable else 0)):
        what = "read and written" if writable else "read"
        raise Trouble("no_access", f"{path} cannot be {what} by this user", remedy="see who owns it")
