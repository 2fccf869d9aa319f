"""QEMU as a `Backend`: check what is here, start a machine, own it until it ends.

Order of a start: state directory, variable store (EFI), the vsock device, a virtiofsd for each share, QEMU stopped, its control link,
then `cont`. So no event of the guest is missed, and whatever fails is told with the last words of who failed, nothing left running.

Sources: qemu(1); `host_stub.qemu.command` for what is asked of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import trio

from host_stub.qemu.accelerator import Choice, Evidence, choose_accelerator, look_for_evidence
from host_stub.qemu.beside import carries, start_virtiofsd, start_vsock
from host_stub.qemu.command import Memory, Parts
from host_stub.qemu.kernel_vsock import HOST_PORTS, KernelVsock, check_device, dial_guest, listen_for_guests
from host_stub.qemu.processes import Child
from host_stub.qemu.running import QemuMachine
from host_stub.qemu.sockets import check_length, clear_leftover
from host_stub.qemu.starting import own_machine, start_qemu
from host_stub.qemu.tools import find_firmware, find_qemu, find_virtiofsd, has_sandbox
from host_stub.words import Accelerator, Architecture, MachineSpec, Running, Share, Trouble

_LONGEST_OWN_NAME = "share00.sock"


class QemuBackend:
    """`accelerator` is a person's word; without it the evidence decides. `evidence` stands in for this host in tests.

    `kernel_vsock` takes the kernel's device in place of ours: see `kernel_vsock` for what that costs.
    """

    name: Literal["qemu", "vz"] = "qemu"

    def __init__(
        self,
        *,
        accelerator: Accelerator | None = None,
        kernel_vsock: bool = False,
        evidence: Callable[[], Evidence] = look_for_evidence,
    ) -> None:
        self._wanted = accelerator
        self._kernel_vsock = kernel_vsock
        self._evidence = evidence

    def choose(self, architecture: Architecture) -> Choice:
        """What a guest of this architecture runs on here, and why. Raises Trouble."""
        return choose_accelerator(architecture, self._evidence(), self._wanted)

    def share_way(self, share: Share) -> Literal["virtiofs", "9p"]:
        """How a guest would be given the share here."""
        return "virtiofs" if carries(find_virtiofsd(), share) else "9p"

    def check(self, spec: MachineSpec) -> None:
        find_qemu(spec.architecture)
        self.choose(spec.architecture)
        if spec.boot == "efi":
            find_firmware(spec.architecture)
        for path in (spec.state_dir / _LONGEST_OWN_NAME, spec.vsock.with_name(f"{spec.vsock.name}_65535")):
            check_length(path)
        if self._kernel_vsock:
            check_device(spec.cid)
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
        machine: QemuMachine = await nursery.start(own_machine, partial(self._bring_up, spec))
        return machine

    async def _bring_up(self, spec: MachineSpec, nursery: trio.Nursery) -> QemuMachine:
        spec.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if spec.console is not None:
            clear_leftover(spec.console)
        watched: list[Child] = []
        vsock_socket: Path | None = None
        if self._kernel_vsock:
            listeners = [(port, await listen_for_guests(port)) for port in HOST_PORTS]
            await nursery.start(KernelVsock(spec.vsock, spec.cid, dial_guest(spec.cid), listeners).serve)
        else:
            vsock_socket = spec.state_dir / "vsock.sock"
            watched.append(start_vsock(vsock_socket, spec.cid, spec.vsock))
            nursery.start_soon(watched[0].run)
        shares, missed = self._start_shares(spec, nursery)
        parts = partial(self._parts, spec, vsock_socket, shares)
        return await start_qemu(spec, parts, nursery, watched=watched, missed=missed)

    def _start_shares(
        self, spec: MachineSpec, nursery: trio.Nursery
    ) -> tuple[tuple[Path | None, ...], tuple[Child, ...]]:
        daemon = find_virtiofsd() if spec.shares else None
        sockets: list[Path | None] = []
        children: list[Child] = []
        for index, share in enumerate(spec.shares):
            if daemon is None or not carries(daemon, share):
                sockets.append(None)
                continue
            path = spec.state_dir / f"share{index}.sock"
            children.append(start_virtiofsd(daemon, share, path))
            nursery.start_soon(children[-1].run)
            sockets.append(path)
        return tuple(sockets), tuple(children)

    def _parts(self, spec: MachineSpec, vsock: Path | None, shares: tuple[Path | None, ...], qmp_fd: int) -> Parts:
        firmware = find_firmware(spec.architecture) if spec.boot == "efi" else None
        return Parts(
            program=find_qemu(spec.architecture),
            accelerator=self.choose(spec.architecture).accelerator,
            qmp_fd=qmp_fd,
            vsock_socket=vsock,
            vhost_vsock=self._kernel_vsock,
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


def _check_file(path: Path, *, writable: bool) -> None:
    if not path.exists():
        raise Trouble("missing_file", f"{path} is not there", remedy="verify the bundle")
    if not os.access(path, os.R_OK | (os.W_OK if writable else 0)):
        what = "read and written" if writable else "read"
        raise Trouble("no_access", f"{path} cannot be {what} by this user", remedy="see who owns it")
