"""What the worker of `file.*` does in one go: read, write, list, look at, make, move. Each takes its request and gives its answer.

Raises `OSError` and `Refused`; the loop in `files` tells them.
"""

from __future__ import annotations

import errno
import heapq
import os

from coworkd.model import files as words
from coworkd.system.file_calls import RENAME_NOREPLACE, renameat2
from coworkd.workers import files_view as view
from coworkd.workers.files_replace import Replacement


def read_some(request: words.ReadSome) -> words.SomeRead:
    fd = view.open_file(request.path, os.O_RDONLY)
    try:
        pieces: list[bytes] = []
        position, left = request.offset, request.limit
        while left and (data := os.pread(fd, left, position)):
            pieces.append(data)
            position += len(data)
            left -= len(data)
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    return words.SomeRead(id=request.id, data=b"".join(pieces), size=size, eof=position >= size)


def write_whole(request: words.WriteWhole) -> words.WholeWritten:
    if request.parents:
        view.make_directories(view.split_path(request.path)[0])
    if request.append:
        return words.WholeWritten(id=request.id, size=_append(request), atomic=False)
    with Replacement(request.path, mode=request.mode, create=request.create, home=request.home) as fresh:
        write_all(fresh.fd, request.data)
        fresh.commit()
        return words.WholeWritten(id=request.id, size=len(request.data), atomic=fresh.atomic)


def _append(request: words.WriteWhole) -> int:
    creating = {"auto": os.O_CREAT, "new": os.O_CREAT | os.O_EXCL, "existing": 0}[request.create]
    mode = request.mode & 0o777 if creating else 0
    fd = view.open_file(request.path, os.O_WRONLY | os.O_APPEND | creating, mode)
    try:
        write_all(fd, request.data)
        os.fsync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def look_at(request: words.LookAt) -> words.LookedAt:
    return words.LookedAt(id=request.id, stat=view.look_at(request.path))


def list_some(request: words.ListSome) -> words.SomeListed:
    """One page, whatever comes and goes between two of them: an entry that is there all the time is told once."""
    directory = view.open_directory(request.path)
    try:
        with os.scandir(directory) as found:
            behind = (name for name in (os.fsencode(entry.name) for entry in found) if name > request.after)
            names = heapq.nsmallest(request.limit + 1, behind)
        entries: list[words.EntryStat] = []
        room = words.LIST_LIMIT_BYTES
        more = len(names) > request.limit
        for name in names[: request.limit]:
            try:
                entry = view.describe(directory, name, name)
            except FileNotFoundError:
                continue
            entries.append(entry)
            room -= len(entry.name) + len(entry.target or b"") + 64
            if room <= 0:
                more = more or name != names[-1]
                break
    finally:
        os.close(directory)
    return words.SomeListed(id=request.id, entries=tuple(entries), more=more)


def make_directory(request: words.MakeDirectory) -> words.FileDone:
    """With `parents` one that is there is fine, as mkdir -p has it."""
    if request.parents:
        view.make_directories(view.split_path(request.path)[0])
    parent, name = view.open_parent(request.path)
    try:
        os.mkdir(name, request.mode & 0o777, dir_fd=parent)
    except FileExistsError:
        if not request.parents:
            raise
        os.close(view.open_path(request.path, os.O_PATH | os.O_DIRECTORY))
    finally:
        os.close(parent)
    return words.FileDone(id=request.id)


def move_entry(request: words.MoveEntry) -> words.FileDone:
    source, name = view.open_parent(request.path)
    try:
        target, to = view.open_parent(request.to)
        try:
            if request.overwrite:
                os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)
            else:
                _move_new(source, name, target, to)
        finally:
            os.close(target)
    finally:
        os.close(source)
    return words.FileDone(id=request.id)


def _move_new(source: int, name: bytes, target: int, to: bytes) -> None:
    try:
        renameat2(source, name, target, to, RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    else:
        return
    # A file system without the promise: looking first is the best there is, and nobody but the session can come between.
    try:
        os.stat(to, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)
    else:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
