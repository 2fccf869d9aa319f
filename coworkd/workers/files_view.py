"""How the worker of `file.*` looks up a path: as the session's own programs would, in a root that is the session's.

Rules
- Symbolic links are followed, magic links (/proc/PID/root, /proc/self/fd) never (openat2(2) RESOLVE_NO_MAGICLINKS).
- Kernel file systems are no place of a session's: its root has a proc of the launcher's namespace in it, which its programs never see.
  What lies on one is refused, by whatever way it was reached.
- Only plain files are read and written. Nothing waits for a fifo or a device to be opened.

Sources: openat2(2), fstatfs(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat

from coworkd.model.calls_files import FileKind
from coworkd.model.files import PATH_LIMIT_BYTES, EntryStat
from coworkd.system import file_system
from coworkd.system.openat2 import RESOLVE_NO_MAGICLINKS, openat2

_AT_FDCWD = -100
_LINKS_LIMIT = 40
"""As many symbolic links the kernel follows in one path."""
_KINDS: dict[int, FileKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class Refused(Exception):
    """The worker does not do this, whatever the kernel would say."""

    def __init__(self, stage: str, message: str, path: bytes | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.message = message
        self.path = path


def refuse_kernel_files(fd: int) -> None:
    """Raise `Refused` where `fd` lies on a file system of the kernel's own."""
    if file_system.is_kernels(fd):
        raise Refused(
            "kernel_files", "it lies on a file system of the kernel's (proc, sys, devpts), which is no place for files"
        )


def refuse_kernel_entry(fd: int) -> None:
    """The same as an `OSError`, for what goes on with the next entry."""
    if file_system.is_kernels(fd):
        raise OSError(errno.EACCES, "it lies on a file system of the kernel's")


def open_path(path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path of the session's; the caller closes it. Raises `OSError`, `Refused`."""
    fd = openat2(_AT_FDCWD, path, flags, resolve=RESOLVE_NO_MAGICLINKS, mode=mode)
    try:
        refuse_kernel_files(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_directory(path: bytes) -> int:
    """A directory to be listed or worked below. Raises `OSError`: ENOTDIR, EACCES; `Refused`."""
    return open_path(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)


def open_file(path: bytes, flags: int, mode: int = 0) -> int:
    """A plain file. Raises `OSError`, `Refused` for anything else."""
    try:
        fd = open_path(path, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a fifo nobody reads, a socket, a terminal that is none
            _refuse_unopened(path)
        raise
    try:
        refuse_special(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_unopened(path: bytes) -> None:
    looked_at = open_path(path, os.O_PATH)
    try:
        refuse_special(os.fstat(looked_at))
    finally:
        os.close(looked_at)


def refuse_special(seen: os.stat_result) -> None:
    """Raise unless it is a plain file: EISDIR, `Refused`."""
    if stat.S_ISDIR(seen.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(seen.st_mode):
        raise Refused("not_a_file", f"it is a {kind_of(seen.st_mode)}, and only plain files are read and written")


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """The directory and the last name. Raises EINVAL where the path names no entry of a directory."""
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, "the path names no entry of a directory: its last part must be a name")
    return directory or b"/", name


def open_parent(path: bytes) -> tuple[int, bytes]:
    """The directory in which the last name of `path` stands, and that name; the caller closes it. Raises `OSError`, `Refused`."""
    directory, name = split_path(path)
    return open_path(directory, os.O_PATH | os.O_DIRECTORY), name


def open_target(path: bytes) -> tuple[int, bytes, os.stat_result | None]:
    """As `open_parent`, of what `path` leads to if its last name is a symbolic link; and what is there, None where nothing is."""
    for _ in range(_LINKS_LIMIT):
        parent, name = open_parent(path)
        try:
            seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISLNK(seen.st_mode):
                return parent, name, seen
            link = os.readlink(name, dir_fd=parent)
        except FileNotFoundError:
            return parent, name, None
        except BaseException:
            os.close(parent)
            raise
        os.close(parent)
        path = link if link.startswith(b"/") else split_path(path)[0] + b"/" + link
        if len(path) > PATH_LIMIT_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def look_at(path: bytes) -> EntryStat:
    """What lstat(2) says of it. Raises `OSError`, `Refused`."""
    try:
        parent, name = open_parent(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = open_path(path, os.O_PATH)  # the root, `.` or `..`
        try:
            return describe(fd, b".", path.rstrip(b"/").rpartition(b"/")[2])
        finally:
            os.close(fd)
    try:
        return describe(parent, name, name)
    finally:
        os.close(parent)


def describe(directory: int, name: bytes, told_as: bytes) -> EntryStat:
    """One entry of a directory, as lstat(2) sees it. Raises `OSError`."""
    seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
    target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(seen.st_mode) else None
    return EntryStat(
        name=told_as,
        kind=kind_of(seen.st_mode),
        size=seen.st_size,
        mode=stat.S_IMODE(seen.st_mode),
        uid=seen.st_uid,
        gid=seen.st_gid,
        modified_at=seen.st_mtime,
        links=seen.st_nlink,
        target=target,
    )


def kind_of(mode: int) -> FileKind:
    return _KINDS.get(stat.S_IFMT(mode), "device")


def make_directories(path: bytes) -> None:
    """Make `path` and what is missing above it. Raises `OSError`, `Refused`."""
    missing: list[bytes] = []
    while True:
        try:
            fd = open_path(path, os.O_PATH | os.O_DIRECTORY)
            break
        except FileNotFoundError:
            missing.append(path)
            path = split_path(path)[0]
    os.close(fd)
    for directory in reversed(missing):
        parent, name = open_parent(directory)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            pass  # made by somebody else meanwhile, which is as good; what it is shows when it is opened
        finally:
            os.close(parent)
