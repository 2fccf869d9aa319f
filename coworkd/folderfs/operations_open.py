"""Operations on open files: opened, read, written, closed.

Rules
- What is opened is the inode that was looked up, a plain file; another that stands there meanwhile is ESTALE. O_NONBLOCK keeps a fifo
  that took its place from holding the server up; O_DIRECT would ask our buffer to be aligned, so it stays the kernel's own.
- A write that appends does so with O_APPEND: what the host has added meanwhile is not overwritten. Any other, of mapped pages say, is
  done at its offset, whatever the descriptor was opened with, for then the end would be the wrong place.
- O_TRUNC truncates what is opened to be read as well, as on any other file system.
- The kernel keeps its pages over an open only where the file is as it was at the open before and has rested for `RACY_NS`: two writes in
  one tick of the clock leave the same time.
- A write is told when the file is closed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from coworkd.folderfs.folder import OK, Answer, Folder, Operation, joined
from coworkd.folderfs.fuse_words import (
    FSYNC_DATA_ONLY,
    OFFSET,
    OPEN_KEEP_CACHE,
    OPENED,
    WRITE_CACHE,
    WRITTEN,
    Op,
    Request,
)
from coworkd.folderfs.nodes import Node
from coworkd.system import file_calls

RACY_NS = 2_000_000_000
COPY_BYTES = 64 * 1024 * 1024
"""A copy of more is answered short: others wait meanwhile."""
_DROPPED = os.O_CREAT | os.O_EXCL | os.O_DIRECT | os.O_NOCTTY
_ADDED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOT_ATOMIC = os.O_TRUNC
_FALLOCATE = file_calls.FALLOC_FL_KEEP_SIZE | file_calls.FALLOC_FL_PUNCH_HOLE | file_calls.FALLOC_FL_ZERO_RANGE


def open_(folder: Folder, request: Request) -> Answer:
    folder.handles.refuse_if_full()
    node = folder.nodes.get(request.node)
    flags = request.words[0]
    fd = open_node(folder, node, flags & ~_NOT_ATOMIC)
    try:
        if flags & os.O_TRUNC:
            os.truncate(b"/proc/self/fd/%d" % fd, 0)
        found = os.stat(fd)
    except OSError:
        os.close(fd)
        raise
    handle = folder.handles.open(fd, node, request.pid)
    if flags & os.O_TRUNC:
        handle.wrote = True
        folder.told.change("truncate", joined(node.path()), request.pid, size=0)
    return OPENED.pack(fd, _cache_flag(node, found), 0)


def open_node(folder: Folder, node: Node, flags: int) -> int:
    """A descriptor of the plain file that the node is; the caller's to close. Raises `OSError`."""
    if node.kind != stat.S_IFREG:
        raise OSError(errno.ENXIO, "only plain files are opened")
    flags = flags & ~_DROPPED | _ADDED
    if node.gone or node.parent is None:
        if not node.handles:
            raise OSError(errno.ESTALE, "it is not there any more")
        return os.open(b"/proc/self/fd/%d" % node.handles[-1], flags & ~os.O_NOFOLLOW)
    for attempt in (1, 2):
        if attempt == 2:
            folder.nodes.place(node)  # perhaps under another of its names
        try:
            fd = os.open(node.name, flags, dir_fd=folder.nodes.directory(node.parent))
        except FileNotFoundError:
            continue
        if node.is_of(os.stat(fd)):
            return fd
        os.close(fd)
    raise OSError(errno.ESTALE, "another one stands there")


def _cache_flag(node: Node, found: os.stat_result) -> int:
    state = (found.st_mtime_ns, found.st_ctime_ns, found.st_size)
    rested = time.time_ns() - max(state[0], state[1]) > RACY_NS
    before, node.cached = node.cached, state if rested else None
    return OPEN_KEEP_CACHE if rested and before == state else 0


def read(folder: Folder, request: Request) -> Answer:
    number, offset, size = request.words[:3]
    buffer = folder.read_buffer[:size]
    return buffer[: os.preadv(folder.handles.get(number).fd, (buffer,), offset)]


def write(folder: Folder, request: Request) -> Answer:
    number, offset, size, how, _, flags, _ = request.words
    if len(request.data) != size:
        return errno.EINVAL
    handle = folder.handles.get(number)
    handle.wrote = True
    if request.pid:
        handle.pid = request.pid
    _append(handle.fd, append=not how & WRITE_CACHE and bool(flags & os.O_APPEND))
    return WRITTEN.pack(os.pwrite(handle.fd, request.data, offset), 0)


def _append(fd: int, *, append: bool) -> None:
    """pwrite(2) does not care for the offset where the descriptor appends."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if bool(flags & os.O_APPEND) != append:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags ^ os.O_APPEND)


def release(folder: Folder, request: Request) -> Answer:
    handle = folder.handles.get(request.words[0])
    try:
        if handle.wrote:
            size = os.stat(handle.fd).st_size
            folder.told.change("write", joined(handle.node.path()), handle.pid, size=size)
    finally:
        folder.handles.close(handle.fd)
    return OK


def fsync(folder: Folder, request: Request) -> Answer:
    number, flags, _ = request.words
    fd = folder.handles.get(number).fd
    if flags & FSYNC_DATA_ONLY:
        os.fdatasync(fd)
    else:
        os.fsync(fd)
    return OK


def lseek(folder: Folder, request: Request) -> Answer:
    number, offset, whence, _ = request.words
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        return errno.EINVAL
    return OFFSET.pack(os.lseek(folder.handles.get(number).fd, offset, whence))


def fallocate(folder: Folder, request: Request) -> Answer:
    number, offset, length, mode, _ = request.words
    if mode & ~_FALLOCATE:
        return errno.EOPNOTSUPP
    handle = folder.handles.get(number)
    file_calls.fallocate(handle.fd, mode, offset, length)
    handle.wrote = True
    return OK


def copy_file_range(folder: Folder, request: Request) -> Answer:
    number_in, offset_in, _, number_out, offset_out, length, _ = request.words
    source, target = folder.handles.get(number_in), folder.handles.get(number_out)
    _append(target.fd, append=False)
    count = os.copy_file_range(source.fd, target.fd, min(length, COPY_BYTES), offset_in, offset_out)
    target.wrote = True
    target.pid = request.pid or target.pid
    return WRITTEN.pack(count, 0)


OPERATIONS: dict[int, Operation] = {
    Op.OPEN: open_,
    Op.READ: read,
    Op.WRITE: write,
    Op.RELEASE: release,
    Op.FSYNC: fsync,
    Op.LSEEK: lseek,
    Op.FALLOCATE: fallocate,
    Op.COPY_FILE_RANGE: copy_file_range,
}
