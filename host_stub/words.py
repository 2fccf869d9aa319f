"""The words of the host stub: what a machine is made of, what state it is in, what it tells, what can go wrong.

Frozen types and no I/O. A *bundle* is the directory of one machine: its copy of the image, its session disk, its configuration,
its logs, and `run/` with the sockets of the keeper that runs it. A *keeper* is the process that owns a running machine;
the *back end* is what makes it run: QEMU or Apple's Virtualization.framework (VZ).

Every back end gives the guest's vsock as one unix socket in the hybrid style that Firecracker made known: a connection that begins
with `CONNECT port\\n` and is answered `OK n\\n` goes to the guest; the guest's own connection to CID 2 at a port P arrives at the unix
socket `PATH_P`. So everything above a back end is the same on every host.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import trio
from msgspec import Struct

Architecture = Literal["aarch64", "x86_64"]
Accelerator = Literal["kvm", "hvf", "tcg"]
DiskBus = Literal["virtio", "nvme", "usb"]
Boot = Literal["kernel", "efi"]

RPC_PORT, EGRESS_PORT, DIAL_PORT, HEALTH_PORT = 5005, 5006, 5007, 5008
"""The default vsock ports: RPC the guest listens on, egress and RPC the host listens on, health the guest listens on."""
HOST_CID = 2
SHARE_TAG = "claudeshared"
"""The virtiofs (or 9p) tag that the guest mounts at /mnt/.virtiofs-root; host folders lie below `shared/` in it."""
SESSION_DISK_SERIAL = "cowork-sessions"
UPDATE_DISK_SERIAL = "smol-bin"
ROOT_DISK_SERIAL = "cowork-root"


class Disk(Struct, frozen=True, kw_only=True):
    """A raw image file as a block device. `serial` is at most 20 bytes (virtio-blk) and what the guest finds it by."""

    path: Path
    serial: str
    bus: DiskBus = "virtio"
    read_only: bool = False


class Share(Struct, frozen=True, kw_only=True):
    """A host directory the guest sees as one file system named by `tag`."""

    path: Path
    tag: str = SHARE_TAG
    read_only: bool = False


class MachineSpec(Struct, frozen=True, kw_only=True):
    """All a back end needs to make the machine. Paths are absolute; nothing is looked up later."""

    architecture: Architecture
    boot: Boot = "kernel"
    kernel: Path | None = None
    """Both with `boot="kernel"`."""
    initrd: Path | None = None
    command_line: str = ""
    disks: tuple[Disk, ...]
    """In the order the guest sees them; the first is the root."""
    shares: tuple[Share, ...] = ()
    cpus: int = 2
    memory_bytes: int = 2 << 30
    network: Literal["none", "nat"] = "none"
    vsock: Path
    """The hybrid socket the back end makes; the guest's own connections arrive at `{vsock}_{port}`."""
    cid: int = 3
    serial_log: Path
    """Gets what the guest writes to its first serial console, appended."""
    console: Path | None = None
    """A unix socket joined to the same console, both ways, where the back end can."""
    state_dir: Path
    """For what the back end keeps by itself: the EFI variable store, the machine identifier, its own sockets."""


class MachineState(str, enum.Enum):
    """Where a machine is. `Machine` is the only writer; the order of a good life is the order here."""

    STOPPED = "stopped"
    STARTING = "starting"
    """The guest's kernel runs; nobody has answered yet, however long it takes."""
    CONNECTED = "connected"
    """`hello` was answered; the guest says it is still coming up."""
    READY = "ready"
    DEGRADED = "degraded"
    """Ready, with parts that do not work; the guest has said which."""
    HUNG = "hung"
    """It was connected and does not answer any more."""
    STOPPING = "stopping"
    CRASHED = "crashed"
    """The machine ended by itself, or its back end did."""


class MachineEvent(Struct, frozen=True, kw_only=True):
    """One thing that happened, in order; `at` in seconds since the epoch."""

    seq: int
    at: float
    kind: Literal["state", "progress", "guest", "trouble", "log"]
    state: MachineState | None = None
    message: str = ""
    details: dict[str, Any] = {}


class Ended(Struct, frozen=True, kw_only=True):
    """How a machine's life ended, as its back end saw it."""

    how: Literal["powered_off", "reset", "panicked", "killed", "failed"]
    message: str
    exit_status: int | None = None


class Trouble(Exception):
    """What went wrong and what to do about it: one typed sentence and a remedy, for a person.

    `code` is a word that programs tell troubles apart by, such as `no_image`, `damaged_image`, `no_hypervisor`, `already_running`.
    """

    def __init__(self, code: str, message: str, *, remedy: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"{message} ({remedy})")
        self.code, self.message, self.remedy, self.details = code, message, remedy, details or {}


class Running(Protocol):
    """A machine whose guest was started. Methods raise `Trouble` where the hypervisor refuses."""

    @property
    def pid(self) -> int:
        """Of the process the guest lives in."""

    async def wait(self) -> Ended:
        """Until it has ended, however. More than one may wait."""

    async def request_stop(self) -> None:
        """Press the power button; the guest may take its time, or ignore it."""

    async def kill(self) -> None:
        """End it now, and return when it has ended."""

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...


@runtime_checkable
class GrowsDisks(Protocol):
    """A `Running` whose back end can give a disk more room under a guest that runs."""

    async def grow_disk(self, serial: str, size_bytes: int) -> None:
        """Make the disk, and its file, `size_bytes` large, and tell the guest. Raises `Trouble`, and then it is as large as before."""


@runtime_checkable
class TellsHalts(Protocol):
    """A `Running` whose back end stops the guest's clock where the host has no room for what it writes, and lets it go on later."""

    @property
    def halted(self) -> str | None:
        """Why the guest stands still, as the end of a sentence, though nobody asked for it; None while it does not."""

    @property
    def lost(self) -> str | None:
        """What the machine had beside it and goes on without, and how that ended; None where all is there."""


class Backend(Protocol):
    """A kind of hypervisor on this host."""

    @property
    def name(self) -> Literal["qemu", "vz"]: ...

    def check(self, spec: MachineSpec) -> None:
        """Raise `Trouble` for what is missing here to run `spec`, before anything is started."""

    async def start(self, spec: MachineSpec, nursery: trio.Nursery) -> Running:
        """Start it. What must live beside it (virtiofsd, the vsock device) is owned by `nursery` and ends with the machine.

        If the nursery is cancelled the machine is killed. If this process dies, the machine ends too.
        """


class GuestNews(Struct, frozen=True, kw_only=True):
    """What the host's link to coworkd has found out, in order; each change is told once.

    `connected`: hello was answered, `degraded["starting"]` says what is still coming up, if anything is. `ready`: all is up that will be;
    `degraded` says what does not work, and is told again when that changes. `hung`: a link is there, and nothing is answered on it;
    `answering` takes that back. `lost`: the link broke; it is being made again. `slept`: this host slept or its clock was set, and the
    guest's was set after it. `event`: an event of coworkd's, its name in `message`, its parameters in `details`.
    """

    kind: Literal["connected", "ready", "hung", "answering", "lost", "slept", "event"]
    message: str = ""
    boot_id: str = ""
    version: str = ""
    degraded: dict[str, str] = {}
    details: dict[str, Any] = {}


class Guest(Protocol):
    """The host's link to coworkd in a guest: made again for ever, however late the guest is or however often it goes."""

    async def run(self, tell: Callable[[GuestNews], None], *, task_status: trio.TaskStatus[None] = ...) -> None:
        """Until cancelled. `started` at once: nothing need be there yet. `tell` does not block and does not raise."""

    async def shutdown(self, *, budget_s: float, reason: str) -> str | None:
        """Ask coworkd to power off within `budget_s`; None once it has agreed, else the sentence why it did not. Never raises."""
