"""A guest that was booted once, and clones of it that go on from there in less than a second.

The template boots with its memory in a file and without any vhost-user device (such a device's state cannot be saved). When coworkd has
come up it is stopped, and the state of its devices is saved without the memory (migration with x-ignore-shared). A clone gets copies of
the memory and the session disk, goes on, and its vsock device is plugged into a spare port.

    template/  ram  state  sessions.img  serial.log
    clone/     ram  sessions.img  serial.log  v  s/

Its clock is the template's until a host sets it (`sync_clock`). The copies are sparse, and lie in /dev/shm where that has room.

Sources: QEMU docs/devel/migration.rst; qapi/migration.json (x-ignore-shared).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from host_stub.qemu.beside import start_vsock
from host_stub.qemu.command import Memory, Parts, compose_vsock_hot_plug
from host_stub.qemu.running import QemuMachine
from host_stub.qemu.starting import own_machine, start_qemu
from host_stub.qemu.tools import find_qemu
from host_stub.words import MachineSpec, Running, Trouble
from tests.vm.guest_lab import Guest, emulated, running, spec_of
from tests.vm.image_lab import Image

SPARE_PORTS = 4
READY = "] ready"
TEST_WORDS = "systemd.journald.forward_to_console=1 systemd.debug_shell=ttyS1"
"""The journal goes to the first serial port, and systemd itself opens a root shell on the second: whoever gives a guest its kernel and
command line is root in it anyway."""
_SAVE_TIMEOUT_S = 240.0
_ROOM_BYTES = 4 << 30


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A saved guest."""

    image: Image
    directory: Path
    fields: dict[str, Any]


@contextlib.contextmanager
def place_for_memory() -> Iterator[Path]:
    """A directory that is removed at the end: in memory where there is room, else where temporary files lie."""
    memory = Path("/dev/shm")
    room = os.statvfs(memory) if memory.is_dir() else None
    enough = room is not None and room.f_bavail * room.f_frsize > _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="coworkd-vm-", dir=memory if enough else None) as made:
        yield Path(made)


@contextlib.contextmanager
def template_of(image: Image, directory: Path, **fields: Any) -> Iterator[Template]:
    """Boot, wait until coworkd is ready, save."""
    fields = {"command_line": emulated(image, f"{image.command_line} {TEST_WORDS}"), **fields}
    with place_for_memory() as place:
        spec = spec_of(image, directory, **fields)
        ram = place / "ram"

        async def start(nursery: trio.Nursery) -> Running:
            bring_up = partial(_start_template, spec, ram)
            machine: QemuMachine = await nursery.start(own_machine, bring_up)
            return machine

        with running(Guest(directory, spec), start) as guest:
            guest.wait_for_serial(READY)
            guest.run(_save, guest.machine, place / "state")
        yield Template(image=image, directory=place, fields={**fields, "template_sessions": directory / "sessions.img"})


@contextlib.contextmanager
def clone_of(template: Template, directory: Path) -> Iterator[Guest]:
    """A guest of its own that goes on where the template stopped."""
    directory.mkdir(parents=True)
    fields = dict(template.fields)
    copy_sparse(fields.pop("template_sessions"), directory / "sessions.img")
    with place_for_memory() as place:
        ram = place / "ram"
        copy_sparse(template.directory / "ram", ram)
        spec = spec_of(template.image, directory, **fields)

        async def start(nursery: trio.Nursery) -> Running:
            bring_up = partial(_start_clone, spec, ram, template.directory / "state")
            machine: QemuMachine = await nursery.start(own_machine, bring_up)
            return machine

        with running(Guest(directory, spec), start) as guest:
            guest.connect().sync_clock(time=time.time())
            yield guest


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what is not a hole."""
    with source.open("rb") as reading, target.open("wb") as writing:
        end = os.fstat(reading.fileno()).st_size
        writing.truncate(end)
        at = 0
        while at < end:
            try:
                at = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            stop = os.lseek(reading.fileno(), at, os.SEEK_HOLE)
            writing.seek(at)
            while at < stop:
                at += os.sendfile(writing.fileno(), reading.fileno(), at, stop - at)


async def _start_template(spec: MachineSpec, ram: Path, nursery: trio.Nursery) -> QemuMachine:
    spec.state_dir.mkdir()
    return await start_qemu(spec, partial(_parts, spec, ram, None), nursery)


async def _start_clone(spec: MachineSpec, ram: Path, state: Path, nursery: trio.Nursery) -> QemuMachine:
    socket = spec.state_dir / "vsock.sock"
    spec.state_dir.mkdir()
    device = start_vsock(socket, spec.cid, spec.vsock)
    nursery.start_soon(device.run)
    with state.open("rb") as saved:
        fd = saved.fileno()
        machine = await start_qemu(
            spec, partial(_parts, spec, ram, "defer"), nursery, watched=[device], pass_fds=[fd], go=False
        )
        await _ignore_shared(machine)
        await machine.client.execute("migrate-incoming", {"uri": f"fd:{fd}"})
    await _wait_for_migration(machine)
    await machine.client.execute("cont")
    for command, words in compose_vsock_hot_plug(str(socket), "spare0"):
        await machine.client.execute(command, words)
    return machine


def _parts(spec: MachineSpec, ram: Path, incoming: str | None, qmp_fd: int) -> Parts:
    return Parts(
        program=find_qemu(spec.architecture),
        accelerator="tcg",
        qmp_fd=qmp_fd,
        memory=Memory(file=ram),
        spare_ports=SPARE_PORTS,
        incoming=incoming,
        more=(
            "-chardev",
            f"socket,id=shell,path={spec.state_dir}/shell.sock,server=on,wait=off",
            "-serial",
            "chardev:shell",
        ),
    )


async def _save(machine: QemuMachine, state: Path) -> None:
    """Stop it and write the state of its devices to `state`; the machine is of no more use."""
    await machine.client.execute("stop")
    await _ignore_shared(machine)
    await machine.client.execute("migrate", {"uri": f"exec:cat >{state}"})
    await _wait_for_migration(machine)
    await machine.kill()


async def _ignore_shared(machine: QemuMachine) -> None:
    words = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    await machine.client.execute("migrate-set-capabilities", words)


async def _wait_for_migration(machine: QemuMachine) -> None:
    with trio.fail_after(_SAVE_TIMEOUT_S):
        while True:
            words = await machine.client.execute("query-migrate")
            if words.get("status") == "completed":
                return
            if words.get("status") == "failed":
                raise Trouble("qemu_failed", f"the state was not moved: {words}", remedy="see QEMU's words")
            await trio.sleep(0.02)
