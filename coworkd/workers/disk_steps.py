"""What is done to a device, step by step, each timed: format, check, repair, mount, grow.

A format ends in one of two states after a power cut at any moment: blank or begun (it is made again), or done; see `disk_marker`. A
check that cannot mend by itself is followed by one that answers yes to everything, whose words are kept: but only after one that changes
nothing has said what that would cost, and by a copy of the superblock and its table where that costs less. It grows on line, by the
kernel, which is safe by its journal, where that lets us. Every failure is `OSError`, or `Refused` where the disk stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence

from msgspec import structs

from coworkd.model.disk import REPORT_LIMIT_BYTES, RESERVE_UID, DiskStep
from coworkd.system import capabilities, disk_tools, mounts
from coworkd.system.block_devices import size_of
from coworkd.system.quota import kernel_has_quota
from coworkd.workers.disk_choice import Refused
from coworkd.workers.disk_marker import SECTOR_BYTES, compose_marker, file_system_bytes, marker_offset
from coworkd.workers.disk_superblock import (
    BLOCK_BYTES,
    PRIMARY_OFFSET,
    SUPERBLOCK_BYTES,
    Superblock,
    backup_offsets,
    describes_groups,
    parse_superblock,
    table_bytes,
)

_MENDED = 3
_UNMENDED = ~_MENDED
_COULD_NOT = ~7
_COSTLY = (
    "SEVERE DATA LOSS POSSIBLE",
    "Root inode is not a directory",
    "Root inode not allocated",
    "root inode isn't a directory",
    "aborted",
)
"""What e2fsck says before it empties tables, or makes a new root. It answers itself with yes there, and we do not."""
_BY_HAND = "docs/storage.md says what can be done by hand"
_TABLE_LIMIT_BYTES = 64 * 1024 * 1024
GROW_BYTES = 8 * 1024 * 1024
"""A device that is larger by less is as large as its file system."""


class Steps:
    """What was done so far."""

    def __init__(self) -> None:
        self.done: list[DiskStep] = []
        self.report = ""

    @contextlib.contextmanager
    def step(self, name: str, *, detail: str = "", changed: bool = False) -> Iterator[list[str]]:
        """Time what is inside; it may put more words into the list. A step that fails is told as well."""
        words, began = ([detail] if detail else []), time.monotonic()
        try:
            yield words
        except OSError as error:
            words.append(f"failed: {error.strerror or error}")
            raise
        finally:
            took_s = time.monotonic() - began
            self.done.append(DiskStep(name=name, took_s=took_s, detail="; ".join(words), changed=changed))


def format_device(fd: int, path: str, size_bytes: int, *, label: str, reserve_percent: float, steps: Steps) -> None:
    """Make the file system on a device that was found blank, or begun. `fd` is open for writing."""
    begin_format(fd, size_bytes)
    blocks = file_system_bytes(size_bytes) // BLOCK_BYTES
    with steps.step("mkfs", detail=f"{blocks * BLOCK_BYTES} bytes", changed=True):
        done = disk_tools.mkfs_ext4(
            path, blocks=blocks, label=label, reserve_percent=reserve_percent, quota=kernel_has_quota()
        )
        if done.code:
            raise done.failure()
        os.fsync(fd)
        made = read_superblock(fd)
        if made is None or made.label != label or made.size_bytes != blocks * BLOCK_BYTES:
            raise OSError(errno.EIO, "what mkfs has made cannot be read back")
        end_format(fd, size_bytes)


def begin_format(fd: int, size_bytes: int) -> None:
    """Write the marker, durably."""
    os.pwrite(fd, compose_marker(size_bytes), marker_offset(size_bytes))
    os.fsync(fd)


def end_format(fd: int, size_bytes: int) -> None:
    """Take the marker away, durably."""
    os.pwrite(fd, bytes(SECTOR_BYTES), marker_offset(size_bytes))
    os.fsync(fd)


def check_device(fd: int, path: str, *, backup: int, steps: Steps) -> None:
    """Have e2fsck look at it, and repair what it must; what it said then is `steps.report`. Raises `Refused` for what cannot be mended,
    or only at the cost of what is on it.
    """
    copies = backup_offsets(size_of(fd))
    if backup:
        _repair(path, [backup, *(offset for offset in copies if offset != backup)], steps)
    elif not has_sound_table(fd):
        _repair(path, copies, steps)
    else:
        done = _preen(path, steps)
        if done.code & _UNMENDED:
            _repair(path, [0, *copies], steps)


def _preen(path: str, steps: Steps) -> disk_tools.ToolResult:
    """What it mends by itself may be a name without a file, taken away: that is told like any other repair."""
    with steps.step("e2fsck -p") as words:
        done = disk_tools.e2fsck(path, "-p")
        words.append(f"ended with {done.code}")
    if done.code & _MENDED and not done.code & _UNMENDED:
        steps.done[-1] = structs.replace(steps.done[-1], changed=True)
        steps.report = _bounded(done.output)
    return done


def has_sound_table(fd: int) -> bool:
    """Whether the first superblock's table of groups can be shown to e2fsck -p."""
    superblock = os.pread(fd, SUPERBLOCK_BYTES, PRIMARY_OFFSET)
    parsed = parse_superblock(superblock)
    if parsed is None:
        return False
    begin = max(parsed.block_bytes, PRIMARY_OFFSET + SUPERBLOCK_BYTES)
    return describes_groups(superblock, os.pread(fd, min(table_bytes(superblock), _TABLE_LIMIT_BYTES), begin))


def _repair(path: str, superblocks: Sequence[int], steps: Steps) -> None:
    """By the first superblock by which e2fsck, asked to change nothing, would not give up the root directory or a table of inodes."""
    for offset in superblocks:
        options = ("-b", str(offset // BLOCK_BYTES), "-B", str(BLOCK_BYTES)) if offset else ()
        with steps.step("e2fsck -fn") as words:
            tried = disk_tools.e2fsck(path, "-f", "-n", *options)
            costly = [sign for sign in _COSTLY if sign in tried.output]
            words.append(f"superblock {offset // BLOCK_BYTES}: {costly[0] if costly else f'ended with {tried.code}'}")
        steps.report = _bounded(tried.output)
        if costly or tried.code & _COULD_NOT:
            continue
        with steps.step("e2fsck -fy", changed=True) as words:
            done = disk_tools.e2fsck(path, "-f", "-y", *options)
            words.append(f"ended with {done.code}")
        steps.report = _bounded(done.output)
        if not done.code & _UNMENDED:
            return
        raise Refused(f"{path} could not be repaired: e2fsck -fy ended with {done.code}; {_BY_HAND}")
    raise Refused(
        f"{path} is damaged, and e2fsck would repair it at the cost of what is on it: it is left as it is; {_BY_HAND}"
    )


def mount_device(path: str, mount_point: bytes, superblock: Superblock, steps: Steps) -> bool:
    """Mount it; whether projects are counted there. A kernel that knows no quota gets a file system that wants none."""
    os.makedirs(mount_point, 0o711, exist_ok=True)
    with steps.step("mount") as words:
        if superblock.quota:
            try:
                _mount(path, mount_point, ("prjquota",))
            except OSError as error:
                words.append(f"with project quota: {error.strerror}")
            else:
                words.append("with project quota")
                return True
        if superblock.quota:
            done = disk_tools.tune2fs(path, "-O", "^project,^quota")
            if done.code:
                raise done.failure()
            words.append("quota was taken off it, this kernel has none")
        _mount(path, mount_point, ())
    return False


def grow_unmounted(fd: int, path: str, steps: Steps) -> None:
    """The same before it is mounted: for a kernel that does not let us do it on line. It wants a whole check right before."""
    if growth(fd) is None:
        return
    with steps.step("e2fsck -fp"):
        done = disk_tools.e2fsck(path, "-f", "-p")
        if done.code & _UNMENDED:
            raise done.failure()
    _resize(fd, path, steps)


def grow_mounted(fd: int, path: str, steps: Steps) -> tuple[int, int]:
    """Make a mounted file system as large as its device; its size in bytes before and after."""
    sizes = growth(fd)
    if sizes is None:
        superblock = read_superblock(fd)
        now = 0 if superblock is None else superblock.size_bytes
        return now, now
    if not may_grow_mounted():
        raise OSError(
            errno.EPERM, "growing on line wants CAP_SYS_RESOURCE, which we lack: it grows when it is mounted anew"
        )
    _resize(fd, path, steps)
    return sizes


def growth(fd: int) -> tuple[int, int] | None:
    """The size of the file system, and what its device has room for; None where that is as good as the same."""
    superblock = read_superblock(fd)
    if superblock is None:
        raise OSError(errno.EIO, "there is no superblock that can be read")
    before, wanted = superblock.size_bytes, file_system_bytes(size_of(fd))
    return None if wanted - before < GROW_BYTES else (before, wanted)


def may_grow_mounted() -> bool:
    """Whether the kernel would let us (ext4_resize_begin asks for CAP_SYS_RESOURCE)."""
    return bool(capabilities.held().get("CapEff", 0) >> capabilities.CAP_SYS_RESOURCE & 1)


def _resize(fd: int, path: str, steps: Steps) -> None:
    sizes = growth(fd)
    if sizes is not None:
        before, wanted = sizes
        with steps.step("resize2fs", detail=f"from {before} to {wanted} bytes", changed=True):
            done = disk_tools.resize2fs(path, wanted // BLOCK_BYTES)
            if done.code:
                raise done.failure()


def read_superblock(fd: int) -> Superblock | None:
    return parse_superblock(os.pread(fd, SUPERBLOCK_BYTES, PRIMARY_OFFSET))


def _mount(path: str, mount_point: bytes, options: tuple[str, ...]) -> None:
    data = ",".join(("errors=remount-ro", f"resuid={RESERVE_UID}", *options))
    mounts.mount(os.fsencode(path), mount_point, b"ext4", mounts.MS_NOSUID | mounts.MS_NODEV, data.encode())


def _bounded(text: str) -> str:
    """A report's begin and end: there it says what was wrong first, and how it came out."""
    if len(text) <= REPORT_LIMIT_BYTES:
        return text
    half = REPORT_LIMIT_BYTES // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
