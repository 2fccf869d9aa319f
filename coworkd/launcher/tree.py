"""The mount tree of a session: its own `/`, built by descriptors from typed entries.

Runs in the builder, a child that ends afterwards. Layout: a small tmpfs becomes the root of a new mount namespace; nothing of the
guest's own tree stays in it, so neither a mistake of bubblewrap's nor one of ours can reach another session.

Invariants
- Sources are cloned (open_tree) before the new namespace is entered, and looked up without following a symbolic link. A clone is private:
  under systemd every mount of the guest is shared, and what is mounted in a session would appear in the guest as well.
- Destinations are looked up below the new root with RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS, so a link planted in a bound
  home leads nowhere (CVE-2026-87766 is this mistake).
- Listening sockets are made here and nowhere else: on the tree's own tmpfs, and laid from there over files of /tmp.
- The last steps make the root read-only and let mounts below it propagate into running sandboxes.

It does not decide what is in the tree: `sandbox.tree` does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import NamedTuple

from coworkd.model.launch import (
    TreeBind,
    TreeCopy,
    TreeDevice,
    TreeDir,
    TreeEntry,
    TreeFile,
    TreeFileBind,
    TreeLink,
    TreeProc,
    TreeTmpfs,
)
from coworkd.system import idmap, mounts
from coworkd.system.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_COPY_LIMIT_BYTES = 1024 * 1024
_ROOT_OPTIONS = b"mode=0755,size=16m,nr_inodes=4096"
_LOOKUP = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_ANY = os.O_PATH | os.O_NOFOLLOW


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EROFS)


_SOCKETS = b"/listeners"
"""Not one of the directories that a sandbox sees."""


class TreeSocket(NamedTuple):
    """A unix socket without a name, which is to listen at `path` for `uid` alone. The descriptor stays the caller's."""

    fd: int
    path: bytes
    uid: int
    gid: int
    backlog: int


class TreeError(Exception):
    """One entry could not be made. `stage` is the entry's kind and destination."""

    def __init__(self, stage: str, error: OSError) -> None:
        super().__init__(f"{stage}: {error.strerror}")
        self.stage = stage
        self.errno = error.errno


class Sources:
    """Detached clones of every bind's source and the bytes of every copied file, taken in the guest's own namespace."""

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid
        self.unmapped: list[bytes] = []
        self.mounts: dict[bytes, int] = {}
        self.files: dict[bytes, bytes] = {}
        self.missing: list[bytes] = []

    def take(self, entries: Sequence[TreeEntry]) -> None:
        """Look up and clone; raises `TreeError` for a required source that cannot be had."""
        root = os.open(b"/", _DIRECTORY | os.O_CLOEXEC)
        for entry in entries:
            if isinstance(entry, TreeBind) or (isinstance(entry, TreeFileBind) and not entry.of_tree):
                self._take_mount(root, entry)
            elif isinstance(entry, TreeCopy):
                self._take_file(root, entry)
        os.close(root)

    def _take_mount(self, root: int, entry: TreeBind | TreeFileBind) -> None:
        try:
            found = openat2(root, entry.source, _ANY, resolve=_LOOKUP)
            status = os.fstat(found)
            if isinstance(entry, TreeFileBind):
                clone = _clone_file(found, status)
            else:
                clone = _clone_directory(found, status, recursive=entry.recursive)
                if entry.map_owner and (status.st_uid, status.st_gid) != (self.uid, self.gid):
                    self._map_owner(clone, status, entry.path)
            os.close(found)
            self.mounts[entry.path] = clone
        except OSError as error:
            if not (entry.optional and error.errno in _NOT_THERE):
                raise TreeError(f"bind {os.fsdecode(entry.source)}", error) from error
            self.missing.append(entry.path)

    def _map_owner(self, clone: int, status: os.stat_result, path: bytes) -> None:
        namespace = idmap.open_user_namespace(uid=(status.st_uid, self.uid), gid=(status.st_gid, self.gid))
        try:
            mounts.mount_setattr(clone, set_attributes=0, user_namespace=namespace, recursive=False)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
                raise
            self.unmapped.append(path)
        finally:
            os.close(namespace)

    def _take_file(self, root: int, entry: TreeCopy) -> None:
        # The guest's own files may lie behind links (/etc/localtime does); root owns every step of the way.
        with contextlib.suppress(FileNotFoundError), open(entry.source, "rb") as file:
            data = file.read(_COPY_LIMIT_BYTES + 1)
            if len(data) <= _COPY_LIMIT_BYTES:
                self.files[entry.path] = data
                return
        self.missing.append(entry.path)


def _clone_directory(found: int, status: os.stat_result, *, recursive: bool) -> int:
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return mounts.open_tree(found, recursive=recursive)


def _clone_file(found: int, status: os.stat_result) -> int:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        raise OSError(errno.EINVAL, "it is neither a plain file nor a socket")
    return mounts.open_tree(found, recursive=False)


def build(entries: Sequence[TreeEntry], sources: Sources, base: bytes, *, listeners: Sequence[TreeSocket] = ()) -> None:
    """Make the tree on the directory `base` of a fresh mount namespace, and make it the root. Raises `TreeError`."""
    mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_PRIVATE)
    # No nodev here: the few device nodes bubblewrap binds live on this tmpfs, which only root can write.
    mounts.mount(b"tmpfs", base, b"tmpfs", mounts.MS_NOSUID, _ROOT_OPTIONS)
    os.chdir(base)
    root = os.open(b".", _DIRECTORY | os.O_CLOEXEC)
    for entry in entries:
        try:
            _apply(root, entry, sources)
        except OSError as error:
            raise TreeError(f"{type(entry).__name__} {os.fsdecode(entry.path)}", error) from error
    for listener in listeners:
        try:
            place(root, listener, sources)
        except OSError as error:
            raise TreeError(f"listener {os.fsdecode(listener.path)}", error) from error
    mounts.mount_setattr(root, set_attributes=mounts.MOUNT_ATTR_RDONLY, recursive=False)
    os.close(root)
    mounts.pivot_root(b".", b".")
    mounts.umount(b".", mounts.MNT_DETACH)
    os.chdir(b"/")
    mounts.mount(b"none", b"/", b"", mounts.MS_REC | mounts.MS_SHARED)


def _apply(root: int, entry: TreeEntry, sources: Sources) -> None:
    if isinstance(entry, TreeDir):
        os.close(_make_directory(root, entry.path, entry.mode))
    elif isinstance(entry, TreeFile):
        _write_file(root, entry.path, entry.data, entry.mode)
    elif isinstance(entry, TreeCopy):
        if entry.path in sources.files:
            _write_file(root, entry.path, sources.files[entry.path], 0o644)
    elif isinstance(entry, TreeLink):
        parent, name = _open_parent(root, entry.path)
        os.symlink(entry.target, name, dir_fd=parent)
        os.close(parent)
    elif isinstance(entry, TreeDevice):
        parent, name = _open_parent(root, entry.path)
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(entry.major, entry.minor), dir_fd=parent)
        os.chmod(name, 0o666, dir_fd=parent)  # noqa: S103 - /dev/null is for everybody
        os.close(parent)
    else:
        _apply_mount(root, entry, sources)


def _apply_mount(root: int, entry: TreeBind | TreeFileBind | TreeTmpfs | TreeProc, sources: Sources) -> None:
    if isinstance(entry, TreeBind | TreeFileBind):
        if isinstance(entry, TreeFileBind) and entry.of_tree:
            sources.mounts[entry.path] = _clone_own(root, entry.source)
        if entry.path in sources.mounts:
            _attach(root, entry, sources)
        return
    target = _make_directory(root, entry.path)
    # /proc/self/fd names the directory itself, so nothing can come between the look-up and the mount.
    path = b"/proc/self/fd/%d" % target
    if isinstance(entry, TreeProc):
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        # bubblewrap holds this one open while it sets up: whoever got at it through that must find nobody else's process in it.
        mounts.mount(b"proc", path, b"proc", flags, b"hidepid=ptraceable")
    else:
        options = b"mode=%o,size=%d,nr_inodes=%d,uid=%d,gid=%d" % (
            entry.mode,
            entry.size_bytes,
            entry.inodes,
            entry.uid,
            entry.uid,
        )
        mounts.mount(b"tmpfs", path, b"tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    os.close(target)


def place(root: int, listener: TreeSocket, sources: Sources) -> None:
    """Name the socket, let it listen, and lay it over a file made for it. Raises `OSError`."""
    directory = _make_directory(root, _SOCKETS, 0o700)
    name = listener.path.rpartition(b"/")[2]
    old = os.umask(0o177)
    try:
        with socket.socket(fileno=os.dup(listener.fd)) as made:
            # By way of the descriptor: an address has room for 108 bytes, and `base` may lie deep.
            made.bind(b"/proc/self/fd/%d/%s" % (directory, name))
            os.chown(name, listener.uid, listener.gid, dir_fd=directory, follow_symlinks=False)
            made.listen(listener.backlog)
    finally:
        os.umask(old)
        os.close(directory)
    own = TreeFileBind(source=_SOCKETS + b"/" + name, path=listener.path, of_tree=True, make=True)
    _apply_mount(root, own, sources)


def _clone_own(root: int, path: bytes) -> int:
    found = openat2(root, path, _ANY, resolve=_LOOKUP)
    try:
        return _clone_file(found, os.fstat(found))
    finally:
        os.close(found)


def _attach(root: int, entry: TreeBind | TreeFileBind, sources: Sources) -> None:
    clone = sources.mounts[entry.path]
    attributes = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV
    if entry.read_only:
        attributes |= mounts.MOUNT_ATTR_RDONLY
    recursive = isinstance(entry, TreeBind) and entry.recursive
    mounts.mount_setattr(clone, set_attributes=attributes, propagation=mounts.MS_PRIVATE, recursive=recursive)
    try:
        target = _open_covered(root, entry) if isinstance(entry, TreeFileBind) else _make_directory(root, entry.path)
    except OSError as error:
        if not entry.optional or error.errno not in _NO_PLACE:
            raise
        sources.missing.append(entry.path)
    else:
        mounts.move_mount(clone, target)
        os.close(target)
    os.close(clone)


def _open_covered(root: int, entry: TreeFileBind) -> int:
    parent, name = _open_parent(root, entry.path)
    if entry.make:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=parent))
    found = openat2(parent, name, _ANY, resolve=_LOOKUP)
    os.close(parent)
    kind = os.fstat(found).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISSOCK(kind)):
        raise OSError(errno.EINVAL, "what it is to cover is neither a plain file nor a socket")
    return found


def _make_directory(root: int, path: bytes, mode: int = 0o755) -> int:
    parent, name = _open_parent(root, path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
        os.chmod(name, mode, dir_fd=parent)
    found = openat2(parent, name, _DIRECTORY, resolve=_LOOKUP)
    os.close(parent)
    return found


def _write_file(root: int, path: bytes, data: bytes, mode: int) -> None:
    parent, name = _open_parent(root, path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=parent)
    if os.write(fd, data) != len(data):  # a full tmpfs takes a part without a word
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fchmod(fd, mode)
    os.close(fd)
    os.close(parent)


def _open_parent(root: int, path: bytes) -> tuple[int, bytes]:
    directory, _, name = path.rpartition(b"/")
    if not path.startswith(b"/") or name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, "a destination is absolute and normal", os.fsdecode(path))
    return openat2(root, directory or b"/", _DIRECTORY, resolve=_LOOKUP), name
