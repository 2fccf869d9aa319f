"""Operations that change what a file is called by: mode, times, size, extended attributes.

Rules
- Giving a file to the session's own user and group succeeds and does nothing, for that is what is shown; to anybody else is EPERM.
- Set-id bits are left out of every mode (ADR 5). A directory that passes its group on keeps that where the mode asks for it.
- Extended attributes are those of `user.`; others are EOPNOTSUPP.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from coworkd.folderfs.folder import OK, Answer, Folder, Operation, joined
from coworkd.folderfs.fuse_words import Op, Request, Set
from coworkd.folderfs.nodes import Node
from coworkd.folderfs.operations_look import attribute_place
from coworkd.folderfs.operations_open import open_node
from coworkd.folderfs.shown import SET_ID

_PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NS = 1_000_000_000


def setattr_(folder: Folder, request: Request) -> Answer:
    valid = request.words[0]
    node = folder.nodes.get(request.node)
    uid, gid = request.words[11:13]
    if (valid & Set.UID and uid != folder.uid) or (valid & Set.GID and gid != folder.gid):
        return errno.EPERM
    if valid & Set.MODE:
        kept = folder.nodes.stat(node).st_mode & stat.S_ISGID if node.kind == stat.S_IFDIR else 0
        _set_mode(folder, node, request.words[10] & 0o7777 & (~SET_ID | kept))
    if valid & Set.SIZE:
        _set_size(folder, request, node)
    if valid & (Set.ATIME | Set.MTIME):
        _set_times(folder, request, node)
    if valid & (Set.MODE | Set.ATIME | Set.MTIME) and not valid & Set.SIZE:
        folder.told.change("attributes", joined(node.path()), request.pid)
    return folder.shown.compose_attr_out(folder.nodes.stat(node))


def _set_mode(folder: Folder, node: Node, mode: int) -> None:
    if node.kind == stat.S_IFLNK:
        raise OSError(errno.EOPNOTSUPP, "a symbolic link has no mode")
    if node.handles:
        os.chmod(node.handles[-1], mode)
        return
    if node.kind == stat.S_IFDIR:
        os.chmod(b"/proc/self/fd/%d" % folder.nodes.directory(node), mode)
        return
    directory, name, _ = folder.nodes.place(node)
    fd = os.open(name, _PATH_ONLY, dir_fd=directory)
    try:
        if not node.is_of(os.stat(fd)):
            raise OSError(errno.ESTALE, "another one stands there")
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def _set_size(folder: Folder, request: Request, node: Node) -> None:
    valid, number, size = request.words[:3]
    if valid & Set.FH:
        handle = folder.handles.get(number)
        os.ftruncate(handle.fd, size)
        handle.wrote = True
        return
    fd = open_node(folder, node, os.O_WRONLY)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    folder.told.change("truncate", joined(node.path()), request.pid, size=size)


def _set_times(folder: Folder, request: Request, node: Node) -> None:
    valid, words = request.words[0], request.words
    now = Set.ATIME_NOW | Set.MTIME_NOW
    times = None
    if valid & now != now:
        found = folder.nodes.stat(node)
        times = (
            _time(valid, Set.ATIME, Set.ATIME_NOW, words[4], words[7], found.st_atime_ns),
            _time(valid, Set.MTIME, Set.MTIME_NOW, words[5], words[8], found.st_mtime_ns),
        )
    if node.handles:
        _utime(node.handles[-1], times)
    elif node.kind == stat.S_IFDIR:
        _utime(b"/proc/self/fd/%d" % folder.nodes.directory(node), times)
    else:
        directory, name, _ = folder.nodes.place(node)
        if times is None:
            os.utime(name, dir_fd=directory, follow_symlinks=False)
        else:
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _utime(place: int | bytes, times: tuple[int, int] | None) -> None:
    if times is None:
        os.utime(place)
    else:
        os.utime(place, ns=times)


def _time(valid: int, given: int, now: int, seconds: int, nanoseconds: int, present: int) -> int:
    if valid & now:
        return time.time_ns()
    if not valid & given:
        return present
    signed = seconds - (1 << 64) if seconds >> 63 else seconds
    return signed * _NS + nanoseconds


def setxattr(folder: Folder, request: Request) -> Answer:
    size, flags = request.words
    name = request.names[0]
    if not name.startswith(b"user."):
        return errno.EOPNOTSUPP
    if len(request.data) != size:
        return errno.EINVAL
    place, follow = attribute_place(folder, request.node)
    os.setxattr(place, name, bytes(request.data), flags, follow_symlinks=follow)
    folder.told.change("attributes", joined(folder.nodes.get(request.node).path()), request.pid)
    return OK


def removexattr(folder: Folder, request: Request) -> Answer:
    name = request.names[0]
    if not name.startswith(b"user."):
        return errno.EOPNOTSUPP
    place, follow = attribute_place(folder, request.node)
    os.removexattr(place, name, follow_symlinks=follow)
    folder.told.change("attributes", joined(folder.nodes.get(request.node).path()), request.pid)
    return OK


OPERATIONS: dict[int, Operation] = {
    Op.SETATTR: setattr_,
    Op.SETXATTR: setxattr,
    Op.REMOVEXATTR: removexattr,
}
