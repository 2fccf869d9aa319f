"""The last steps of mounting a folder, and taking it away: children inside the session's mount namespace.

Rules
- A folder's place is an entry of `/sessions/NAME/mnt`, a tmpfs that only root can write: looked up without following a symbolic link, and
  refused unless it is root's and a mount of its own. A link planted in the home leads nowhere (CVE-2026-87766 is this mistake).
- The tree is shared with running sandboxes: what is attached or taken away here is so in them at once.
- Nothing here waits for a source: a directory made on a tmpfs, a mount moved. An overlay looks at its layers while it is made, so that
  is a step of its own, with a deadline.
- What cannot be unmounted because it is in use goes lazily: at once from sight, for good with its last user. Only where our own file
  system hangs in its source is it cut off from its users, who could not even be killed otherwise.

Sources: move_mount(2), umount2(2), Documentation/filesystems/overlayfs.rst, mount_namespaces(7), proc(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import NamedTuple

from msgspec import Struct

from coworkd.launcher.errand import ErrandError, Report, Teller
from coworkd.launcher.folder_users import find_users
from coworkd.system import capabilities, mounts, namespaces
from coworkd.system.openat2 import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_LOOKUP = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_HANG_S = 1.0
_LOOK_AGAIN_S = 0.05
_WAITS_FOR_REQUESTS = {"x86_64": (7, 271, 232, 281), "aarch64": (73, 22)}[os.uname().machine]
"""poll, ppoll, epoll_wait, epoll_pwait; the newer machine has only those with a mask."""
_STOPPED, _NO_CALL = (b"T", b"t"), -1
_ATTRIBUTES = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV


class _Standing(NamedTuple):
    """Where a process is: the number of its call, and how often it was put to sleep or aside so far."""

    call: int
    switches: tuple[int, ...]


class FolderOverlay(Struct, frozen=True, kw_only=True):
    """Lay a stage over the detached mount `lower`; report with the detached overlay."""

    lower: int
    stage: bytes
    base: bytes
    """An empty directory to stand on, in a mount namespace of this child's own."""

    def run(self, teller: Teller) -> None:
        """Raises `ErrandError`, `OSError`."""
        # Without CAP_SYS_RESOURCE: an overlay writes with the rights of who mounted it, and would take of the disk's reserve.
        capabilities.give_up(capabilities.CAP_SYS_RESOURCE)
        # Layers are looked up in the mount namespace of who mounts; a detached mount is in none (kernels before 6.15).
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_PRIVATE)
        base = os.open(self.base, _DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(self.lower, base)
        lower = os.open(self.base, _DIRECTORY | os.O_CLOEXEC)
        upper, work = self._open_stage()
        options = (
            ("source", "coworkd-stage"),
            ("lowerdir", f"/proc/self/fd/{lower}"),
            ("upperdir", f"/proc/self/fd/{upper}"),
            ("workdir", f"/proc/self/fd/{work}"),
            ("redirect_dir", "off"),
            ("metacopy", "off"),
            ("index", "off"),
            ("xino", "off"),
        )
        teller.tell(
            Report(mounted_as="overlay"), (mounts.make_file_system("overlay", options, attributes=_ATTRIBUTES),)
        )

    def _open_stage(self) -> tuple[int, int]:
        try:
            stage = os.open(self.stage, _DIRECTORY | os.O_CLOEXEC)
            return (
                openat2(stage, b"upper", _DIRECTORY, resolve=_BELOW),
                openat2(stage, b"work", _DIRECTORY, resolve=_BELOW),
            )
        except OSError as error:
            raise ErrandError("stage", error.errno, f"{os.fsdecode(self.stage)}: {error.strerror}") from error


class FolderPlace(Struct, frozen=True, kw_only=True):
    """One entry below a session's `mnt`."""

    session: str
    uid: int
    name: str
    mount_namespace: int
    server_pid: int | None = None
    """Of a guarded folder: who serves it."""

    def attach(self, teller: Teller, mount: int, *, is_directory: bool) -> None:
        """Put the detached `mount` there; what stood there goes. Raises `ErrandError`, `OSError`."""
        above = self._enter()
        name = os.fsencode(self.name)
        self._clear(above, name)
        with contextlib.suppress(FileExistsError):
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=above))
        target = openat2(above, name, os.O_PATH | os.O_NOFOLLOW, resolve=_BELOW)
        mounts.move_mount(mount, target)
        teller.tell(Report())

    def detach(self, teller: Teller, *, lazy: bool) -> None:
        """Take it away; nothing there is as good. One in use stays, unless it may go lazily. Raises `ErrandError`, `OSError`."""
        above = self._enter()
        name = os.fsencode(self.name)
        os.fchdir(above)
        busy = not _umount(name)
        leftovers = find_users(self.session, self.uid, self.name) if busy else ()
        if busy and lazy:
            if self.server_pid is not None and _hangs(self.server_pid):
                _cut_off(name)
                leftovers = (*leftovers, "its source does not answer: whoever waited for it was told ECONNABORTED")
            _umount_lazily(name)
        if not busy or lazy:
            self._remove(above, name)
        teller.tell(Report(busy=busy, leftovers=leftovers))

    def detach_all(self, teller: Teller, folders: tuple[tuple[str, int | None], ...]) -> None:
        """Take those away, each a name and who serves it, in this order. Raises `ErrandError`, `OSError`."""
        above = self._enter()
        os.fchdir(above)
        for folder, server_pid in folders:
            name = os.fsencode(folder)
            if not _umount(name):
                if server_pid is not None and _hangs(server_pid):
                    _cut_off(name)
                _umount_lazily(name)
        teller.tell(Report())

    def cut_off_if_hung(self, teller: Teller) -> None:
        """Part it from its users, where it hangs in its source; told as `busy`. Raises `ErrandError`, `OSError`."""
        above = self._enter()
        hangs = self.server_pid is not None and _hangs(self.server_pid)
        if hangs:
            os.fchdir(above)
            _cut_off(os.fsencode(self.name))
        teller.tell(Report(busy=hangs))

    def _enter(self) -> int:
        """Into the session's view; a descriptor of its `mnt`."""
        namespaces.setns(self.mount_namespace, namespaces.CLONE_NEWNS)
        root = os.open(b"/", _DIRECTORY | os.O_CLOEXEC)
        home = openat2(root, b"/sessions/" + self.session.encode(), _DIRECTORY, resolve=_LOOKUP)
        above = openat2(home, b"mnt", _DIRECTORY, resolve=_BELOW)
        status = os.fstat(above)
        if status.st_uid != 0 or status.st_dev == os.fstat(home).st_dev:
            raise ErrandError("place", errno.EPERM, f"the session {self.session!r} has no place for folders")
        return above

    def _clear(self, above: int, name: bytes) -> None:
        """What is mounted there, of a file system that has died, goes; so does an entry of the other kind."""
        os.fchdir(above)
        with contextlib.suppress(OSError):
            while True:
                _umount_lazily(name)
        self._remove(above, name)

    def _remove(self, above: int, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            kind = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                os.rmdir(name, dir_fd=above)
            else:
                os.unlink(name, dir_fd=above)


def _umount(name: bytes) -> bool:
    """False where it is in use; what is not mounted is as good as unmounted."""
    try:
        mounts.umount(name, mounts.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    return True


def _umount_lazily(name: bytes) -> None:
    mounts.umount(name, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)


def _cut_off(name: bytes) -> None:
    """End the connection of our own file system. Never for another's: a share's is the whole machine's."""
    with contextlib.suppress(OSError):
        mounts.umount(name, mounts.UMOUNT_NOFOLLOW | mounts.MNT_FORCE)


def _hangs(pid: int) -> bool:
    """Whether it stands still within one call to the kernel that is not the wait for requests, for its source does not answer; so does
    one that somebody has stopped, whatever it waits for."""
    before = _standing(pid)
    if before is None or before.call in _WAITS_FOR_REQUESTS:
        return False
    deadline = time.monotonic() + _HANG_S
    while time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
        if _standing(pid) != before:
            return False
    return True


def _standing(pid: int) -> _Standing | None:
    try:
        with open(f"/proc/{pid}/syscall", "rb") as file:
            words = file.read().split()
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
        switches = tuple(int(line.split()[1]) for line in lines if b"ctxt_switches" in line)
        stopped = any(line.split()[1] in _STOPPED for line in lines if line.startswith(b"State:"))
        return _Standing(_NO_CALL if stopped else int(words[0]), switches)
    except (OSError, ValueError, IndexError):  # it is gone, or runs, or the kernel does not say
        return None
