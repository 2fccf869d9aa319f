"""The words between coworkd and the worker that brings the session disk up (`workers.disk`): one SOCK_SEQPACKET message each.

Rules
- Every request carries `id`, and is answered by exactly one answer of the same id. One request at a time.
- A refusal to touch what was found is no error: it is `BroughtUp` with `state` "absent" and the reason.
- What was done is told step by step, in order, each with its time; what a repair said comes whole, but bounded.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

DiskKind = Literal["disk", "loop"]
DISK_LABEL = "cowork-sessions"
RESERVE_UID = 60_000
"""Who may use ext4's reserved blocks beside CAP_SYS_RESOURCE (`resuid=`): a number that nobody has. Root's own would open the reserve to
the servers of folders, which are root without that capability."""
REPORT_LIMIT_BYTES = 48 * 1024
TAIL_BYTES = 1024 * 1024
"""The end of the device that the file system leaves alone: where a format that was interrupted is recognised."""


class BringUp(Struct, frozen=True, kw_only=True, tag="bring_up"):
    """Find the disk, check it, make a file system where it is blank, mount it. Answered by `BroughtUp`."""

    id: int
    kind: Literal["auto", "disk", "loop"]
    mount_point: bytes
    label: str = DISK_LABEL
    device: bytes = b""
    """`disk`: only this one; empty: the one with the serial or label, else the only blank one."""
    wait_s: float = 0.0
    """How long a disk may be late."""
    loop_file: bytes = b""
    loop_size: int = 0
    reserve_percent: float = 5.0


class FindDisk(Struct, frozen=True, kw_only=True, tag="find_disk"):
    """Whether `BringUp` would find something to mount now; nothing is changed. Answered by `DiskFound`."""

    id: int
    ask: BringUp


class Trim(Struct, frozen=True, kw_only=True, tag="trim"):
    """Tell the device what is free (FITRIM). Answered by `Trimmed` or `DiskRefused`."""

    id: int
    mount_point: bytes


class Grow(Struct, frozen=True, kw_only=True, tag="grow"):
    """Make the file system as large as its device; a loop file grows to `size` first. Answered by `Grown` or `DiskRefused`."""

    id: int
    mount_point: bytes
    size: int | None = None
    """None or 0: as the device is."""


Request = BringUp | FindDisk | Trim | Grow


class DiskStep(Struct, frozen=True, kw_only=True):
    """One thing that was done. `changed`: it wrote to the disk, beyond what each mount does."""

    name: str
    took_s: float
    detail: str = ""
    changed: bool = False


class BroughtUp(Struct, frozen=True, kw_only=True, tag="brought_up"):
    """`ok` and `degraded`: it is mounted; `absent`: it is not, and nothing of it was changed but what `steps` says.

    `none_there`: no disk was found that could be meant.
    """

    id: int
    state: Literal["ok", "degraded", "absent"]
    reason: str = ""
    kind: DiskKind = "disk"
    device: bytes = b""
    uuid: str = ""
    quota: bool = False
    """Whether the kernel keeps projects to their limits on it."""
    none_there: bool = False
    steps: tuple[DiskStep, ...] = ()
    report: str = ""
    """What a repair said; empty for none."""


class DiskFound(Struct, frozen=True, kw_only=True, tag="disk_found"):
    id: int
    found: bool
    detail: str = ""


class Trimmed(Struct, frozen=True, kw_only=True, tag="trimmed"):
    id: int
    trimmed_bytes: int


class Grown(Struct, frozen=True, kw_only=True, tag="grown"):
    id: int
    before_bytes: int
    after_bytes: int


class DiskRefused(Struct, frozen=True, kw_only=True, tag="disk_refused"):
    """It was not done."""

    id: int
    errno: int | None
    message: str


Answer = BroughtUp | DiskFound | Trimmed | Grown | DiskRefused
