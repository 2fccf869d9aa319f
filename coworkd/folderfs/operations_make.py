"""Operations that make names: files, directories, fifos and sockets, symbolic and hard links.

Rules
- What is made here is the session's own from then on. What was there before is not, whoever raced for it: all is made exclusively.
- Set-id bits are left out and devices refused (ADR 5). The caller's umask has been applied by the kernel; the server's own is nil.
"""

from __future__ import annotations

import errno
import os
import stat

from coworkd.folderfs.folder import Answer, Folder, Operation, below, joined
from coworkd.folderfs.fuse_words import OPENED, Op, Request
from coworkd.folderfs.nodes import Node
from coworkd.folderfs.operations_open import open_node
from coworkd.folderfs.shown import SET_ID
from coworkd.model.folder import ChangeKind

_NODES = frozenset({stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK})
_PERMISSIONS = 0o7777 & ~SET_ID
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_KEPT = os.O_ACCMODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC | os.O_NOATIME


def create(folder: Folder, request: Request) -> Answer:
    folder.handles.refuse_if_full()
    flags, mode, _, _ = request.words
    parent, name = folder.nodes.get(request.node), request.names[0]
    directory = folder.nodes.directory(parent)
    try:
        fd = os.open(name, flags & _OPEN_KEPT | _CREATE, mode & _PERMISSIONS, dir_fd=directory)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return _open_existing(folder, request, parent, name)
    try:
        path = below(parent, name)
        folder.made(fd, b"", path)
        found = os.stat(fd)
        node = folder.nodes.enter(parent, name, found)
    except OSError:
        os.close(fd)
        raise
    folder.handles.open(fd, node, request.pid)
    folder.told.change("create", joined(path), request.pid)
    return folder.shown.compose_entry(node.number, found) + OPENED.pack(fd, 0, 0)


def _open_existing(folder: Folder, request: Request, parent: Node, name: bytes) -> Answer:
    """The host was faster: what it made is opened as it is."""
    flags = request.words[0]
    found = os.stat(name, dir_fd=folder.nodes.directory(parent), follow_symlinks=False)
    if stat.S_IFMT(found.st_mode) != stat.S_IFREG:
        return errno.ESTALE
    node = folder.nodes.enter(parent, name, found)
    try:
        fd = open_node(folder, node, flags & ~os.O_TRUNC)
    except OSError:
        folder.nodes.forget(node.number, 1)
        raise
    folder.handles.open(fd, node, request.pid)
    if flags & os.O_TRUNC:
        os.ftruncate(fd, 0)
        folder.told.change("truncate", joined(below(parent, name)), request.pid, size=0)
    return folder.shown.compose_entry(node.number, os.stat(fd)) + OPENED.pack(fd, 0, 0)


def tmpfile(folder: Folder, request: Request) -> Answer:
    folder.handles.refuse_if_full()
    flags, mode, _, _ = request.words
    parent = folder.nodes.get(request.node)
    kept = flags & (_OPEN_KEPT | os.O_EXCL) | os.O_TMPFILE | os.O_CLOEXEC
    fd = os.open(b".", kept, mode & _PERMISSIONS, dir_fd=folder.nodes.directory(parent))
    try:
        found = os.stat(fd)
        node = folder.nodes.enter_nameless(parent, found)
    except OSError:
        os.close(fd)
        raise
    folder.handles.open(fd, node, request.pid)
    return folder.shown.compose_entry(node.number, found) + OPENED.pack(fd, 0, 0)


def mkdir(folder: Folder, request: Request) -> Answer:
    parent, name = folder.nodes.get(request.node), request.names[0]
    directory = folder.nodes.directory(parent)
    os.mkdir(name, request.words[0] & _PERMISSIONS, dir_fd=directory)
    return _entered(folder, request, parent, name, "mkdir")


def mknod(folder: Folder, request: Request) -> Answer:
    mode = request.words[0]
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind not in _NODES:
        return errno.EPERM
    parent, name = folder.nodes.get(request.node), request.names[0]
    os.mknod(name, kind | mode & _PERMISSIONS, dir_fd=folder.nodes.directory(parent))
    return _entered(folder, request, parent, name, "create")


def symlink(folder: Folder, request: Request) -> Answer:
    name, target = request.names
    parent = folder.nodes.get(request.node)
    os.symlink(target, name, dir_fd=folder.nodes.directory(parent))
    return _entered(folder, request, parent, name, "symlink")


def link(folder: Folder, request: Request) -> Answer:
    node = folder.nodes.get(request.words[0])
    parent, name = folder.nodes.get(request.node), request.names[0]
    directory = folder.nodes.directory(parent)
    path = below(parent, name)
    if node.gone:
        if not node.handles:
            return errno.ENOENT
        os.link(b"/proc/self/fd/%d" % node.handles[-1], name, dst_dir_fd=directory, follow_symlinks=True)
        borrowed, origin = False, b""
    else:
        old_directory, old_name, _ = folder.nodes.place(node)
        old_path = node.path()
        recorded = folder.own(old_directory, old_name, old_path)
        borrowed, origin = recorded is None or recorded.borrowed, joined(old_path)
        os.link(old_name, name, src_dir_fd=old_directory, dst_dir_fd=directory, follow_symlinks=False)
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not node.is_of(found):  # the host put another in the old name's place, in between
        os.unlink(name, dir_fd=directory)
        return errno.ESTALE
    folder.made(directory, name, path, borrowed=borrowed)
    folder.nodes.linked(node, parent, name)
    node.lookups += 1
    folder.told.change("link", joined(path), request.pid, to=origin)
    return folder.shown.compose_entry(node.number, found)


def _entered(folder: Folder, request: Request, parent: Node, name: bytes, change: ChangeKind) -> Answer:
    """What was just made, as the kernel is told of it."""
    directory = folder.nodes.directory(parent)
    path = below(parent, name)
    folder.made(directory, name, path)
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    node = folder.nodes.enter(parent, name, found)
    folder.told.change(change, joined(path), request.pid)
    return folder.shown.compose_entry(node.number, found)


OPERATIONS: dict[int, Operation] = {
    Op.CREATE: create,
    Op.TMPFILE: tmpfile,
    Op.MKDIR: mkdir,
    Op.MKNOD: mknod,
    Op.SYMLINK: symlink,
    Op.LINK: link,
}
