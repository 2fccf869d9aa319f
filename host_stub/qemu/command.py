"""A machine as QEMU's words. Pure: the same spec gives the same argv, and nothing is looked up or made.

Rules:
- Nothing is there by default (-nodefaults -no-user-config): every device is named here, in the order the guest finds it.
- A path never becomes an option: those with a comma are written as QEMU wants them (`,,`), block devices as JSON.
- The control link (QMP) and the memory are descriptors and memfds, so that there is no path for others to meet them on.
- The guest's reset and its panic end the machine (-no-reboot, panic=-1), because each start checks the image first.
- The guest reaches no network unless `nat` is asked for.

Does not choose: accelerator, firmware, helpers and their sockets are given (`Parts`).

Sources: qemu(1), QEMU docs/system/{i386/pc,arm/virt}.rst, docs/interop/qemu-qmp-ref (BlockdevOptions), docs/devel/migration.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from msgspec import Struct

from host_stub.words import Accelerator, Disk, MachineSpec, Share, Trouble

SERIAL_LIMIT = 20
_SERIAL = re.compile(r"[A-Za-z0-9._-]+")
_TAG = re.compile(r"[A-Za-z0-9._-]{1,31}")
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
FIRST_SPARE = 16
"""The slot of the first spare port; those below it are QEMU's own to give to devices."""


class Memory(Struct, frozen=True, kw_only=True):
    """Where the guest's memory lies: a memfd, or a file that outlives QEMU (for templates)."""

    file: Path | None = None


class Parts(Struct, frozen=True, kw_only=True):
    """What was found and started for this machine. `shares` are the spec's, each with its virtiofsd's socket, or None for 9p."""

    program: Path
    accelerator: Accelerator
    qmp_fd: int
    vsock_socket: Path | None = None
    """Of our vhost-user device. None: no vsock, or the kernel's."""
    vhost_vsock: bool = False
    share_sockets: tuple[Path | None, ...] = ()
    firmware_code: Path | None = None
    firmware_variables: Path | None = None
    sandbox: bool = False
    memory: Memory | None = Memory()
    """None where the host has no memfd (macOS): plain memory, and no vhost-user device."""
    spare_ports: int = 0
    """Empty PCIe ports `spare0`…, for devices that come later."""
    incoming: str | None = None
    more: tuple[str, ...] = ()
    """Words of one's own, for tests."""


def compose_command(spec: MachineSpec, parts: Parts) -> list[str]:
    """The whole argv. Raises Trouble for a serial or tag that QEMU or the guest would cut short."""
    argv = [
        str(parts.program),
        "-name",
        "guest=cowork,debug-threads=off",
        "-nodefaults",
        "-no-user-config",
        "-nographic",
    ]
    argv += _machine(spec, parts)
    argv += ["-chardev", f"socket,id=qmp,fd={parts.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    argv += _boot(spec, parts)
    argv += _console(spec)
    argv += _spare_ports(parts.spare_ports)
    for index, disk in enumerate(spec.disks):
        argv += _disk(index, disk, first_usb=all(other.bus != "usb" for other in spec.disks[:index]))
    for index, (share, socket) in enumerate(zip(spec.shares, parts.share_sockets, strict=True)):
        argv += _share(index, share, socket)
    argv += _vsock(spec, parts)
    argv += ["-object", "rng-builtin,id=entropy", "-device", "virtio-rng-pci,rng=entropy"]
    argv += ["-device", "virtio-balloon-pci,free-page-reporting=on", "-device", "pvpanic-pci"]
    if spec.network == "nat":
        argv += ["-netdev", "user,id=nat", "-device", "virtio-net-pci,netdev=nat"]
    if parts.incoming is not None:
        argv += ["-incoming", parts.incoming]
    if parts.sandbox:
        argv += ["-sandbox", _SANDBOX]
    return [*argv, *parts.more]


def compose_vsock_hot_plug(socket: str, port: str) -> list[tuple[str, dict[str, Any]]]:
    """The QMP commands that give a running machine our vsock device: in the spare port `port`, through the unix socket."""
    address = {"type": "unix", "data": {"path": socket}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    device = {"driver": "vhost-user-vsock-pci", "id": "vsock", "chardev": "vsock", "bus": port}
    return [("chardev-add", {"id": "vsock", "backend": backend}), ("device_add", device)]


def compose_share_hot_plug(tag: str, socket: str, port: str) -> list[tuple[str, dict[str, Any]]]:
    """The same for a share whose virtiofsd listens at `socket`."""
    address = {"type": "unix", "data": {"path": socket}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    device = {"driver": "vhost-user-fs-pci", "id": f"{port}-device", "chardev": port, "tag": tag, "bus": port}
    return [("chardev-add", {"id": port, "backend": backend}), ("device_add", device)]


def compose_disk_hot_plug(disk: Disk, port: str) -> list[tuple[str, dict[str, Any]]]:
    """The same for a disk; on virtio or NVMe, for a spare port is PCIe."""
    driver = "nvme" if disk.bus == "nvme" else "virtio-blk-pci"
    device = {"driver": driver, "id": f"{port}-device", "drive": f"{port}-disk", "serial": disk.serial, "bus": port}
    return [("blockdev-add", _block_words(f"{port}-disk", disk.path, read_only=disk.read_only)), ("device_add", device)]


def _machine(spec: MachineSpec, parts: Parts) -> list[str]:
    words = ["q35", "vmport=off", "hpet=off"] if spec.architecture == "x86_64" else ["virt"]
    if spec.architecture == "aarch64":
        words.append("gic-version=" + ("host" if parts.accelerator == "kvm" else "3"))
    argv = []
    if parts.memory is not None:
        words.append("memory-backend=memory")
        backend = "memory-backend-memfd" if parts.memory.file is None else "memory-backend-file"
        place = "" if parts.memory.file is None else f",mem-path={_escaped(parts.memory.file)}"
        argv += ["-object", f"{backend},id=memory,size={spec.memory_bytes},share=on{place}"]
    if parts.firmware_code is not None:
        words += ["pflash0=firmware", "pflash1=variables"]
    accelerator = "tcg,thread=multi" if parts.accelerator == "tcg" else parts.accelerator
    argv += ["-machine", ",".join(words), "-accel", accelerator, "-cpu", _processor(spec, parts)]
    return [*argv, "-m", f"size={spec.memory_bytes // 1024}k", "-smp", str(spec.cpus), "-S", "-no-reboot"]


def _processor(spec: MachineSpec, parts: Parts) -> str:
    if parts.accelerator != "tcg":
        return "host"
    # The pointer authentication of the real algorithm costs an emulated aarch64 half of its speed.
    return "max,pauth-impdef=on" if spec.architecture == "aarch64" else "max"


def _boot(spec: MachineSpec, parts: Parts) -> list[str]:
    argv: list[str] = []
    if spec.boot == "efi":
        if parts.firmware_code is None or parts.firmware_variables is None:
            raise ValueError("EFI takes a firmware and a variable store")
        argv += _blockdev("firmware", parts.firmware_code, read_only=True)
        return argv + _blockdev("variables", parts.firmware_variables, read_only=False)
    if spec.kernel is None or spec.initrd is None:
        raise ValueError("boot by kernel takes a kernel and an initrd")
    argv += ["-kernel", str(spec.kernel), "-initrd", str(spec.initrd)]
    return [*argv, "-append", command_line_of(spec.command_line)]


def command_line_of(line: str) -> str:
    """The kernel's command line, with a panic that ends the machine at once, unless the image says what to do."""
    return line if re.search(r"(^|\s)panic=", line) else f"{line} panic=-1".strip()


def _console(spec: MachineSpec) -> list[str]:
    log = f"logfile={_escaped(spec.serial_log)},logappend=on"
    if spec.console is None:
        return ["-chardev", f"null,id=console,{log}", "-serial", "chardev:console"]
    socket = f"socket,id=console,path={_escaped(spec.console)},server=on,wait=off"
    return ["-chardev", f"{socket},{log}", "-serial", "chardev:console"]


def _spare_ports(count: int) -> list[str]:
    argv = []
    for index in range(count):
        argv += ["-device", f"pcie-root-port,id=spare{index},chassis={index + 1},addr={FIRST_SPARE + index:#x}"]
    return argv


def _disk(index: int, disk: Disk, *, first_usb: bool) -> list[str]:
    if not _SERIAL.fullmatch(disk.serial) or len(disk.serial) > SERIAL_LIMIT:
        raise Trouble(
            "bad_disk",
            f"{disk.serial!r} cannot be the serial of a disk",
            remedy=f"give {disk.path} one of at most {SERIAL_LIMIT} letters, digits, dots, dashes",
        )
    name = f"disk{index}"
    argv = _blockdev(name, disk.path, read_only=disk.read_only)
    if disk.bus == "usb":
        if first_usb:
            argv += ["-device", "qemu-xhci,id=usb"]
        return [*argv, "-device", f"usb-storage,bus=usb.0,drive={name},serial={disk.serial}"]
    driver = "nvme" if disk.bus == "nvme" else "virtio-blk-pci"
    return [*argv, "-device", f"{driver},drive={name},serial={disk.serial},id={name}-device"]


def _blockdev(name: str, path: Path, *, read_only: bool) -> list[str]:
    return ["-blockdev", json.dumps(_block_words(name, path, read_only=read_only))]


def _block_words(name: str, path: Path, *, read_only: bool) -> dict[str, Any]:
    """Locked by QEMU against a second machine; read by many where none may write."""
    return {
        "driver": "raw",
        "node-name": name,
        "read-only": read_only,
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(path), "read-only": read_only, "discard": "unmap"},
    }


def _share(index: int, share: Share, socket: Path | None) -> list[str]:
    if not _TAG.fullmatch(share.tag):
        raise Trouble(
            "bad_share",
            f"{share.tag!r} cannot be the tag of a share",
            remedy="use at most 31 letters, digits, dots, dashes",
        )
    name = f"share{index}"
    if socket is not None:
        chardev = f"socket,id={name},path={_escaped(socket)}"
        return ["-chardev", chardev, "-device", f"vhost-user-fs-pci,chardev={name},tag={share.tag}"]
    mode = "on" if share.read_only else "off"
    local = f"local,id={name},path={_escaped(share.path)},security_model=mapped-xattr,multidevs=remap,readonly={mode}"
    return ["-fsdev", local, "-device", f"virtio-9p-pci,fsdev={name},mount_tag={share.tag}"]


def _vsock(spec: MachineSpec, parts: Parts) -> list[str]:
    if parts.vhost_vsock:
        return ["-device", f"vhost-vsock-pci,guest-cid={spec.cid}"]
    if parts.vsock_socket is None:
        return []
    chardev = f"socket,id=vsock,path={_escaped(parts.vsock_socket)}"
    return ["-chardev", chardev, "-device", "vhost-user-vsock-pci,chardev=vsock"]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
