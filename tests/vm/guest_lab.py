"""Guests for tests: booted cold, or cloned from a template, each driven by coworkd's own client over its vsock.

A guest is owned by a thread of its own with a trio loop in it, so that tests stay plain functions. That thread starts QEMU and what runs
beside it, and lives as long as they do (a child ends with the thread that started it, see `host_stub.qemu.processes`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import trio

from coworkd.client.sync import Client, connect
from coworkd.model.errors import CoworkError
from host_stub.qemu import QemuBackend
from host_stub.qemu.beside import start_virtiofsd
from host_stub.qemu.command import compose_disk_hot_plug, compose_share_hot_plug
from host_stub.qemu.running import QemuMachine
from host_stub.qemu.tools import Virtiofsd, find_virtiofsd
from host_stub.words import RPC_PORT, Disk, Ended, MachineSpec, Running, Share
from tests.vm.image_lab import Image
from tests.vm.root_shell import RootShell

BOOT_TIMEOUT_S = 600.0
"""Many times what it takes, for machines that have much else to do."""
ASK_AGAIN_S = 1.0
EMULATED_X86_WORDS = "tsc=reliable"
"""For an emulated x86_64 guest's kernel. It takes QEMU's processor for one whose CPUs' counters differ (QEMU gives all of them the same)
and without this word takes the ACPI timer, whose 24 bits go round in 4.7 s: a guest that the host leaves waiting for more than half of
that has a clock that stands still until they have (linux commit 76031d9536a0; Documentation/admin-guide/kernel-parameters.txt, tsc=)."""
MIB = 1 << 20
R = TypeVar("R")
Start = Callable[[trio.Nursery], Awaitable[Running]]


class Guest:
    """A running guest. Its paths lie below `directory`."""

    def __init__(self, directory: Path, spec: MachineSpec) -> None:
        self.directory = directory
        self.spec = spec
        self.started_at = time.monotonic()
        self.answered_after_s: float | None = None
        self.machine: Running
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._spare = 1
        self._shell: RootShell | None = None
        self._clients: list[Client] = []

    @property
    def uri(self) -> str:
        return f"hybrid://{self.spec.vsock}?port={RPC_PORT}"

    def serial(self) -> str:
        """What its serial console has said until now."""
        try:
            return self.spec.serial_log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def connect(self, *, timeout_s: float = BOOT_TIMEOUT_S, ready: bool = True) -> Client:
        """A client, once coworkd answers (and has come up, with `ready`). Closed with the guest."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                client = connect(self.uri, client_name="vm-test", timeout_s=10)
            except CoworkError as error:
                self._fail_late(deadline, f"coworkd does not answer: {error}")
                time.sleep(0.05)
                continue
            if self.answered_after_s is None:
                self.answered_after_s = time.monotonic() - self.started_at
            if ready and "starting" in client.hello.degraded:
                client.close()
                self._fail_late(deadline, f"coworkd does not come up: {client.hello.degraded['starting']}")
                time.sleep(ASK_AGAIN_S)
                continue
            self._clients.append(client)
            return client

    def hang_up(self) -> None:
        """Close its clients, from any thread: whoever waits for a guest that stands still fails."""
        for client in tuple(self._clients):
            client.close()

    def wait_for_serial(self, text: str, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Until the console has said it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.serial():
            self._fail_late(deadline, f"{text!r} did not come")
            time.sleep(0.05)

    def run(self, act: Callable[..., Awaitable[R]], *words: Any) -> R:
        """Call an async function in the guest's own loop."""
        return trio.from_thread.run(act, *words, trio_token=self._token)

    def ended(self, timeout_s: float = 240) -> Ended:
        """How it ended; fails where it does not end in time."""

        async def wait() -> Ended:
            with trio.fail_after(timeout_s):
                return await self.machine.wait()

        return self.run(wait)

    @property
    def shell(self) -> RootShell:
        """A root shell in a clone, for looks that no call of coworkd gives."""
        if self._shell is None:
            self._shell = RootShell(self.spec.state_dir / "shell.sock")
        return self._shell

    def plug_disk(self, disk: Disk) -> str:
        """Give a clone another disk while it runs; the name of the port it is in."""
        port = self._next_port()
        self._ask_qemu(compose_disk_hot_plug(disk, port))
        return port

    def plug_share(self, share: Share) -> str:
        """Give a clone a share while it runs."""
        port = self._next_port()
        socket = self.spec.state_dir / f"{port}.sock"
        daemon = find_virtiofsd()
        assert daemon is not None, "there is no virtiofsd"
        self.run(self._start_virtiofsd, daemon, share, socket)
        self._ask_qemu(compose_share_hot_plug(share.tag, str(socket), port))
        return port

    def wait_for_share(self, timeout_s: float = 240) -> None:
        """Until coworkd says that it has mounted one."""
        deadline = time.monotonic() + timeout_s
        client = self.connect()
        while not any("mounted" in line.message for line in client.logs(component="share").lines):
            self._fail_late(deadline, "the share was not mounted")
            time.sleep(0.2)

    def unplug(self, port: str) -> None:
        """Ask the guest to let go of what is in the port; it is gone a few seconds later."""
        self._ask_qemu([("device_del", {"id": f"{port}-device"})])

    def _next_port(self) -> str:
        port, self._spare = f"spare{self._spare}", self._spare + 1
        return port

    def _ask_qemu(self, commands: list[tuple[str, dict[str, Any]]]) -> None:
        assert isinstance(self.machine, QemuMachine)
        for command, words in commands:
            self.run(self.machine.client.execute, command, words)

    async def _start_virtiofsd(self, daemon: Virtiofsd, share: Share, socket: Path) -> None:
        # In the guest's own thread, which its end is tied to.
        self._nursery.start_soon(start_virtiofsd(daemon, share, socket).run)

    def forget_clients(self) -> None:
        if self._shell is not None:
            self._shell.close()
        while self._clients:
            with contextlib.suppress(CoworkError, OSError):
                self._clients.pop().close()

    def _fail_late(self, deadline: float, why: str) -> None:
        if time.monotonic() > deadline:
            tail = "\n".join(self.serial().splitlines()[-60:])
            raise AssertionError(f"{why}\n-- the end of its console\n{tail}")

    async def _live(self, start: Start, told: queue.SimpleQueue[BaseException | None], over: trio.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.machine = await start(nursery)
            told.put(None)
            await over.wait()
            nursery.cancel_scope.cancel()


@contextlib.contextmanager
def running(guest: Guest, start: Start) -> Iterator[Guest]:
    """Start it, and see to it that it has ended at the end."""
    told: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    over: list[trio.Event] = []

    async def main() -> None:
        over.append(trio.Event())
        await guest._live(start, told, over[0])

    def thread() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            told.put(error)

    living = threading.Thread(target=thread, name=f"guest {guest.directory.name}", daemon=True)
    living.start()
    failed = told.get(timeout=BOOT_TIMEOUT_S)
    if failed is not None:
        raise failed
    try:
        yield guest
    finally:
        guest.forget_clients()
        trio.from_thread.run_sync(over[0].set, trio_token=guest._token)
        living.join(120)
        assert not living.is_alive(), "the guest did not end"


def emulated(image: Image, command_line: str) -> str:
    """The command line for where every instruction is emulated."""
    return f"{command_line} {EMULATED_X86_WORDS}" if image.architecture == "x86_64" else command_line


def spec_of(image: Image, directory: Path, **fields: Any) -> MachineSpec:
    """A machine with that image and a blank session disk of 512 MiB; `disks` are added to these, `session_bus` says where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    sessions = directory / "sessions.img"
    if not sessions.exists():
        with sessions.open("wb") as file:
            file.truncate(512 * MIB)
    disks = (
        Disk(path=image.rootfs, serial="cowork-root", read_only=True),
        Disk(path=sessions, serial="cowork-sessions", bus=fields.pop("session_bus", "virtio")),
        *fields.pop("disks", ()),
    )
    words: dict[str, Any] = {
        "architecture": image.architecture,
        "kernel": image.kernel,
        "initrd": image.initrd,
        "command_line": image.command_line,
        "disks": disks,
        "cpus": 2,
        "memory_bytes": 768 * MIB,
        "vsock": directory / "v",
        "serial_log": directory / "serial.log",
        "state_dir": directory / "s",
    }
    return MachineSpec(**{**words, **fields})


@contextlib.contextmanager
def booted(image: Image, directory: Path, **fields: Any) -> Iterator[Guest]:
    """A guest from its kernel's first instruction on."""
    backend = QemuBackend()
    if backend.choose(image.architecture).accelerator == "tcg":
        fields["command_line"] = emulated(image, fields.get("command_line", image.command_line))
    spec = spec_of(image, directory, **fields)

    async def start(nursery: trio.Nursery) -> Running:
        return await backend.start(spec, nursery)

    with running(Guest(directory, spec), start) as guest:
        yield guest
