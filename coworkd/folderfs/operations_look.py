"""Operations that change nothing: names, attributes, links' targets, directories, room.

Symbolic links are read, never followed: the kernel walks them itself, in the caller's view.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from coworkd.folderfs.folder import OK, Answer, Folder, Operation
from coworkd.folderfs.fuse_words import DIRENT, NAME_BYTES, OPENED, STATFS, Op, ProtocolError, Request, parse_forgets
from coworkd.folderfs.handles import Listing

_NO_ENTRY = bytes(128)
"""struct fuse_entry_out of node 0: the kernel looks the name up when it needs it."""


def lookup(folder: Folder, request: Request) -> Answer:
    parent = folder.nodes.get(request.node)
    name = request.names[0]
    found = os.stat(name, dir_fd=folder.nodes.directory(parent), follow_symlinks=False)
    node = folder.nodes.enter(parent, name, found)
    return folder.shown.compose_entry(node.number, found)


def forget(folder: Folder, request: Request) -> Answer:
    folder.nodes.forget(request.node, request.words[0])
    return None


def batch_forget(folder: Folder, request: Request) -> Answer:
    with contextlib.suppress(ProtocolError):  # nobody waits for an answer, so there is nobody to tell
        for node, count in parse_forgets(request):
            folder.nodes.forget(node, count)
    return None


def getattr_(folder: Folder, request: Request) -> Answer:
    return folder.shown.compose_attr_out(folder.nodes.stat(folder.nodes.get(request.node)))


def readlink(folder: Folder, request: Request) -> Answer:
    directory, name, _ = folder.nodes.place(folder.nodes.get(request.node))
    return os.readlink(name, dir_fd=directory)


def statfs(folder: Folder, request: Request) -> Answer:
    room = os.statvfs(folder.source_fd)
    return STATFS.pack(
        room.f_blocks,
        room.f_bfree,
        room.f_bavail,
        room.f_files,
        room.f_ffree,
        room.f_bsize,
        room.f_namemax or NAME_BYTES,
        room.f_frsize,
        0,
    )


def opendir(folder: Folder, request: Request) -> Answer:
    folder.handles.refuse_if_full()
    node = folder.nodes.get(request.node)
    # Not by ".", which asks for the right to search as well.
    fd = os.open(b"/proc/self/fd/%d" % folder.nodes.directory(node), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    above = node.parent.ino if node.parent is not None else node.ino
    folder.handles.open(fd, node, request.pid, Listing(fd, node.ino, above))
    return OPENED.pack(fd, 0, 0)


def readdir(folder: Folder, request: Request) -> Answer:
    number, offset, size = request.words[:3]
    listing = folder.handles.get(number).listing
    if listing is None:
        return errno.ENOTDIR
    pieces, room = [], size
    for after, entry in listing.read(offset):
        taken = 24 + (len(entry.name) + 7 & ~7)
        if taken > room:
            break
        room -= taken
        pieces.append(_compose_dirent(entry.inode, after, entry.kind, entry.name))
    return b"".join(pieces)


def readdirplus(folder: Folder, request: Request) -> Answer:
    """Entries with what LOOKUP would say of each; those but `.` and `..` count as looked up."""
    number, offset, size = request.words[:3]
    handle = folder.handles.get(number)
    if handle.listing is None:
        return errno.ENOTDIR
    pieces, room = [], size
    for after, entry in handle.listing.read(offset):
        taken = 152 + (len(entry.name) + 7 & ~7)
        if taken > room:
            break
        room -= taken
        plus, inode = _NO_ENTRY, entry.inode
        if after > 2:
            try:
                found = os.stat(entry.name, dir_fd=handle.fd, follow_symlinks=False)
                node = folder.nodes.enter(handle.node, entry.name, found)
                plus, inode = folder.shown.compose_entry(node.number, found), found.st_ino
            except OSError:  # gone meanwhile, or not to be looked at: the name alone
                pass
        pieces.append(plus + _compose_dirent(inode, after, entry.kind, entry.name))
    return b"".join(pieces)


def _compose_dirent(inode: int, after: int, kind: int, name: bytes) -> bytes:
    length = len(name)
    return DIRENT.pack(inode, after, length, kind) + name + bytes(-length % 8)


def release_directory(folder: Folder, request: Request) -> Answer:
    folder.handles.close(request.words[0])
    return OK


def fsync_directory(folder: Folder, request: Request) -> Answer:
    os.fsync(folder.handles.get(request.words[0]).fd)
    return OK


def getxattr(folder: Folder, request: Request) -> Answer:
    name = request.names[0]
    if not name.startswith(b"user."):
        return errno.EOPNOTSUPP
    place, follow = attribute_place(folder, request.node)
    value = os.getxattr(place, name, follow_symlinks=follow)
    return _sized(value, request.words[0])


def listxattr(folder: Folder, request: Request) -> Answer:
    place, follow = attribute_place(folder, request.node)
    names = os.listxattr(place, follow_symlinks=follow)
    own = b"".join(os.fsencode(name) + b"\0" for name in names if name.startswith("user."))
    return _sized(own, request.words[0])


def _sized(value: bytes, room: int) -> Answer:
    if not room:
        return len(value).to_bytes(4, "little") + bytes(4)
    return value if len(value) <= room else errno.ERANGE


def attribute_place(folder: Folder, number: int) -> tuple[int | bytes, bool]:
    """An open descriptor of the node, or a path, and whether its last component is to be followed: these calls know no O_PATH."""
    node = folder.nodes.get(number)
    if node.handles:
        return node.handles[-1], True
    if node.kind == stat.S_IFDIR:
        return b"/proc/self/fd/%d" % folder.nodes.directory(node), True
    directory, name, _ = folder.nodes.place(node)
    return b"/proc/self/fd/%d/%b" % (directory, name), False


OPERATIONS: dict[int, Operation] = {
    Op.LOOKUP: lookup,
    Op.FORGET: forget,
    Op.BATCH_FORGET: batch_forget,
    Op.GETATTR: getattr_,
    Op.READLINK: readlink,
    Op.STATFS: statfs,
    Op.OPENDIR: opendir,
    Op.READDIR: readdir,
    Op.READDIRPLUS: readdirplus,
    Op.RELEASEDIR: release_directory,
    Op.FSYNCDIR: fsync_directory,
    Op.GETXATTR: getxattr,
    Op.LISTXATTR: listxattr,
}
