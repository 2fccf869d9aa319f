"""Finding the device: the session disk among the machine's, or a file of ours as a loop device. What is found is open, and only ours.

Rules
- A disk is looked at through an exclusive descriptor (O_EXCL), which no mounted device gives: what is in use anywhere, in any
  namespace, is `busy`. One that is to be formatted is looked at a second time, and marked, through one that is held meanwhile.
- A loop file is locked (flock(2)) from the moment it is seen to until its device is gone, and refused while any loop device lies on
  it: that is a coworkd that has it mounted.
- A loop file is made where there is none, sparse, and grown where it is ours, or blank, and smaller than is wanted; it never shrinks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence

from coworkd.model.disk import BringUp
from coworkd.system import disk_tools, loop_devices
from coworkd.system.block_devices import Disk, disks_below, read_disk, read_disks, size_of
from coworkd.system.mountinfo import parse_mounts
from coworkd.workers.disk_choice import Candidate, Plan, Refused, choose, plan, plan_content
from coworkd.workers.disk_marker import SECTOR_BYTES, is_marker, marker_offset
from coworkd.workers.disk_probe import LEAST_BYTES, Content, probe
from coworkd.workers.disk_steps import Steps, begin_format

_LOOK_AGAIN_S = 0.1
_ALIGN_BYTES = 512


class Target:
    """The device that was found, with what is to be done to it; `fd` is open for reading and writing."""

    def __init__(self, fd: int, path: str, size_bytes: int, plan: Plan, *, notes: Sequence[str] = ()) -> None:
        self.fd = fd
        self.path = path
        self.size_bytes = size_bytes
        self.plan = plan
        self.notes = tuple(notes)


class OpenDevice:
    """Implements `disk_probe.Device` on an open descriptor."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self.size_bytes = size_of(fd)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise OSError(errno.EIO, f"only {len(data)} of {length} bytes are there")
        return data

    def signatures(self) -> dict[str, str]:
        return disk_tools.blkid(self._path)


# -- disks --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_disk(ask: BringUp, steps: Steps) -> Iterator[Target]:
    """The session disk, waited for at most `ask.wait_s`. Raises `Refused`, `OSError`."""
    with steps.step("find disk") as words:
        found = find_disk(ask)
        words.append(f"{found.disk.name}: {found.content.detail or found.content.what}")
    wanted = plan(found)
    path = os.fsdecode(found.disk.path)
    if wanted.action == "format":
        _mark_alone(path, ask.label)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if wanted.action == "format" and not _is_marked(fd):
            raise Refused(f"{path} is another disk than a moment ago")
        yield Target(fd, path, size_of(fd), wanted)
    finally:
        os.close(fd)


def _mark_alone(path: str, label: str) -> None:
    """Look once more while nobody else can mount it, and begin its format: the marker shows that mkfs gets what was seen here.

    Raises `Refused`, `OSError`.
    """
    fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        if plan_content(probe(OpenDevice(fd, path), label), path).action != "format":
            raise Refused(f"{path} was blank a moment ago, and is not any more")
        begin_format(fd, size_of(fd))
    finally:
        os.close(fd)


def _is_marked(fd: int) -> bool:
    size = size_of(fd)
    return is_marker(os.pread(fd, SECTOR_BYTES, marker_offset(size)), size)


def find_disk(ask: BringUp) -> Candidate:
    """Look until there is one that is meant, or the time is over. Raises `Refused`."""
    deadline = time.monotonic() + ask.wait_s
    while True:
        try:
            return choose(look_at_disks(ask), ask.label)
        except Refused as refused:
            if not refused.none_there or time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_AGAIN_S)


def look_at_disks(ask: BringUp) -> list[Candidate]:
    """What is on each disk there is; the root file system's are left out. With `ask.device` only that one."""
    if ask.device:
        return _look_at_named(ask)
    own = disks_below(os.stat("/").st_dev)
    return [look_at(disk, ask.label) for disk in read_disks() if disk.name not in own]


def look_at(disk: Disk, label: str) -> Candidate:
    """One disk. Never raises: what refuses is `busy` or `unreadable`."""
    path = os.fsdecode(disk.path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        busy = describe_users(disk.number) if error.errno == errno.EBUSY else ""
        what = Content(what="unreadable", detail=f"it cannot be opened: {error.strerror}")
        return Candidate(disk=disk, content=what, busy=busy)
    try:
        return Candidate(disk=disk, content=probe(OpenDevice(fd, path), label))
    finally:
        os.close(fd)


def describe_users(number: int) -> str:
    """Who has a device mounted, in words: the first process that sees the mount."""
    wanted = f"{os.major(number)}:{os.minor(number)}".encode()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/mountinfo", "rb") as file:
            lines = [line for line in file if line.split(None, 3)[2] == wanted]
            if lines:
                place = os.fsdecode(parse_mounts(lines)[0].mount_point)
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    return f"it is mounted on {place} (as {comm.read().strip()}, pid {pid}, sees it)"
    return "something else has it open"


def _look_at_named(ask: BringUp) -> list[Candidate]:
    """A device that the configuration names needs no serial number; a plain file or a socket in its place is refused."""
    path = os.path.realpath(ask.device)
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise Refused(f"there is no {os.fsdecode(ask.device)}", none_there=True) from error
    if not stat.S_ISBLK(found.st_mode):
        raise Refused(f"{os.fsdecode(ask.device)} is no block device")
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"))
    disk = _named(os.fsdecode(name), path, found.st_rdev)
    # The label stands in for a serial number: this one is called by whoever wrote the configuration.
    called = Disk(
        name=disk.name,
        path=path,
        number=disk.number,
        size_bytes=disk.size_bytes,
        serial=ask.label,
        read_only=disk.read_only,
        removable=disk.removable,
        users=disk.users,
    )
    return [look_at(called, ask.label)]


def _named(name: str, path: bytes, number: int) -> Disk:
    try:
        return read_disk(name)
    except OSError:  # a partition has no place in /sys/block
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size_bytes = size_of(fd)
        finally:
            os.close(fd)
        return Disk(
            name=name,
            path=path,
            number=number,
            size_bytes=size_bytes,
            serial="",
            read_only=False,
            removable=False,
            users=(),
        )


# -- loop files ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_loop(ask: BringUp, steps: Steps) -> Iterator[Target]:
    """The loop file as a device, made and grown as wanted. Raises `Refused`, `OSError`."""
    path = os.fsdecode(ask.loop_file)
    with contextlib.ExitStack() as stack:
        file_fd = _open_loop_file(ask.loop_file, steps)
        stack.callback(os.close, file_fd)
        _claim(file_fd, path)
        wanted, notes = _see_to_loop_file(file_fd, path, ask, steps)
        fd, device = loop_devices.attach(file_fd, ask.loop_file)
        stack.callback(os.close, fd)
        yield Target(fd, device, size_of(fd), wanted, notes=notes)


def _see_to_loop_file(fd: int, path: str, ask: BringUp, steps: Steps) -> tuple[Plan, list[str]]:
    """What is to be done with it, and what a person should know. It is judged as it is: what stands at its end says whose it is."""
    if _is_small_and_zero(fd):
        notes = fit_loop_file(fd, path, ask.loop_size, steps)
        return plan_content(probe(OpenDevice(fd, path), ask.label), path), notes
    content = probe(OpenDevice(fd, path), ask.label)
    wanted = plan_content(content, path)
    # A marker knows the device by its size: what was begun is ended first, and grows the next time.
    size = 0 if content.what == "begun" else ask.loop_size
    return wanted, fit_loop_file(fd, path, size, steps)


def _is_small_and_zero(fd: int) -> bool:
    """Whether nothing is in it yet, nor room for a file system."""
    if os.fstat(fd).st_size >= LEAST_BYTES:
        return False
    data = os.pread(fd, LEAST_BYTES, 0)
    return data.count(0) == len(data)


def look_at_loop_file(ask: BringUp) -> Content:
    """What is in the file now, without a device. Raises `Refused` where there is none, or it is no plain file."""
    try:
        fd = os.open(ask.loop_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Refused(f"there is no {os.fsdecode(ask.loop_file)}", none_there=True) from error
    try:
        _require_plain(fd, os.fsdecode(ask.loop_file))
        return probe(OpenDevice(fd, os.fsdecode(ask.loop_file)), ask.label)
    finally:
        os.close(fd)


def fit_loop_file(fd: int, path: str, wanted_bytes: int, steps: Steps) -> list[str]:
    """Make the file as large as is wanted, if it is smaller; what a person should know of its room."""
    size = os.fstat(fd).st_size
    wanted = wanted_bytes - wanted_bytes % _ALIGN_BYTES
    if size < wanted:
        with steps.step("grow file", detail=f"{path}: from {size} to {wanted} bytes", changed=True):
            os.ftruncate(fd, wanted)
            os.fsync(fd)
    found, host = os.fstat(fd), os.fstatvfs(fd)
    lacking = found.st_size - found.st_blocks * 512 - host.f_bavail * host.f_frsize
    if lacking > 0:
        return [f"the file system of {path} has {lacking} bytes less free than the loop disk may come to take"]
    return []


def _open_loop_file(path: bytes, steps: Steps) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        with steps.step("make file", detail=os.fsdecode(path), changed=True):
            fd = os.open(path, flags | os.O_CREAT, 0o600)
            directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            return fd


def _claim(fd: int, path: str) -> None:
    _require_plain(fd, path)
    for device in loop_devices.find_attached(fd):
        users = describe_users(os.stat(device).st_rdev)
        raise Refused(f"{path} is in use as {device}: {users}; stop that coworkd first")
    try:
        # The loop device keeps this very description open, so the lock lives as long as it.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused(f"{path} is being seen to by another coworkd") from error


def _require_plain(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Refused(f"{path} is no plain file")
