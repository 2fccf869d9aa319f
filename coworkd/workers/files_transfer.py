"""An upload or download of the worker's, in a thread of its own: bytes between a socket and files, bounded by what the kernel keeps.

Rules
- `begin` refuses what can be seen beforehand; the call that asked is answered by it. `run` moves the bytes and tells how it ended, before
  the stream is closed (see `model.files`).
- An uploaded file takes its place when all of it has come and whoever sent it said so; else nothing is left. Of an archive the entries
  before a fault stay, the one that was being written does not.
- A download has the size that was told: a file that grows is cut there, one that shrinks ends early and says so.

Sources: sendfile(2), unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

import msgspec

from coworkd.archive.entry import ArchiveError
from coworkd.archive.pack import Pack
from coworkd.archive.unpack import Unpack, write_sparsely
from coworkd.model import files as words
from coworkd.workers import files_view as view
from coworkd.workers.files_replace import Replacement
from coworkd.workers.files_view import Refused

BUFFER_BYTES = 256 * 1024
_PIECE_BYTES = 1024 * 1024
_finish_decoder = msgspec.msgpack.Decoder(words.Finish)
_encoder = msgspec.msgpack.Encoder()


class Sockets:
    """The two sockets of a transfer; owned here."""

    def __init__(self, stream: socket.socket, control: socket.socket) -> None:
        self.stream = stream
        self.control = control

    def finish_of(self, received: int) -> None:
        """All bytes have come; raise `Refused` unless the other side has said that it was all."""
        try:
            said = self.control.recv(words.PATH_LIMIT_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            said = b""
        if not said:
            raise Refused("aborted", "the upload was broken off")
        if _finish_decoder.decode(said).size != received:
            raise Refused("aborted", "the upload did not come whole")

    def end(self, outcome: words.TransferEnd) -> None:
        """Say how it ended, then close both. Whoever is gone is not told."""
        with contextlib.suppress(OSError):
            self.control.send(_encoder.encode(outcome), socket.MSG_NOSIGNAL)
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.control.close()


class UploadFile:
    """A stream becomes a file."""

    def __init__(self, request: words.Upload) -> None:
        """Raises `OSError`, `Refused`."""
        self._mtime_ns = request.mtime_ns
        self._file = Replacement(request.path, mode=request.mode, create="auto", home=request.home)
        try:
            _refuse_too_big(self._file.fd, request.size)
        except BaseException:
            self._file.close()
            raise

    def run(self, sockets: Sockets) -> words.Moved:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        received = 0
        with self._file as file:
            while count := sockets.stream.recv_into(buffer):
                write_sparsely(file.fd, buffer[:count])
                received += count
            sockets.finish_of(received)
            os.ftruncate(file.fd, received)
            if self._mtime_ns is not None:
                os.utime(file.fd, ns=(self._mtime_ns, self._mtime_ns))
            file.commit()
            return words.Moved(entries=1, size=received, atomic=file.atomic)

    def close(self) -> None:
        self._file.close()


class UploadTree:
    """A stream is an archive, and becomes a tree."""

    def __init__(self, request: words.Upload) -> None:
        """The directory is made where it is missing. Raises `OSError`, `Refused`."""
        with contextlib.suppress(FileExistsError):
            parent, name = _parent_or_none(request.path)
            if parent >= 0:
                try:
                    os.mkdir(name, 0o755, dir_fd=parent)
                finally:
                    os.close(parent)
        self._top = view.open_directory(request.path)
        try:
            _refuse_too_big(self._top, request.size)
        except BaseException:
            self.close()
            raise

    def run(self, sockets: Sockets) -> words.Moved:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        received = 0
        try:
            with Unpack(self._top, entries_limit=words.ENTRIES_LIMIT) as unpack:
                while count := sockets.stream.recv_into(buffer):
                    unpack.receive_data(buffer[:count])
                    received += count
                sockets.finish_of(received)
                unpack.finish()
                return words.Moved(entries=unpack.entries, size=unpack.bytes)
        finally:
            self.close()

    def close(self) -> None:
        if self._top >= 0:
            os.close(self._top)
            self._top = -1


class DownloadFile:
    """A file becomes a stream."""

    def __init__(self, request: words.Download) -> None:
        """Raises `OSError`, `Refused`."""
        self._fd = view.open_file(request.path, os.O_RDONLY)
        seen = os.fstat(self._fd)
        self._size = seen.st_size
        self.begun = words.DownloadBegun(
            id=request.id, size=seen.st_size, mode=seen.st_mode & 0o777, mtime_ns=seen.st_mtime_ns
        )

    def run(self, sockets: Sockets) -> words.Moved:
        try:
            sent = _send_file(sockets.stream, self._fd, self._size)
        finally:
            self.close()
        if sent < self._size:
            raise Refused(
                "shrunk", f"the file has become shorter while it was read: {sent} of {self._size} bytes were sent"
            )
        return words.Moved(entries=1, size=sent)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DownloadTree:
    """A file or a tree becomes an archive, and that a stream."""

    def __init__(self, request: words.Download) -> None:
        """Raises `OSError`, `Refused`."""
        self.begun = words.DownloadBegun(id=request.id)
        seen = view.open_path(request.path, os.O_PATH)
        try:
            is_directory = stat.S_ISDIR(os.fstat(seen).st_mode)
        finally:
            os.close(seen)
        self._name: bytes | None = None
        if is_directory:
            self._directory = view.open_directory(request.path)
        else:
            self._directory, self._name, _ = view.open_target(request.path)

    def run(self, sockets: Sockets) -> words.Moved:
        pack = Pack(entries_limit=words.ENTRIES_LIMIT, check=view.refuse_kernel_entry)
        sent = 0
        try:
            for chunk in pack.chunks(self._directory, self._name, self._name or b""):
                sockets.stream.sendall(chunk)
                sent += len(chunk)
        finally:
            self.close()
        told = tuple(b"%s: %s" % (path, why.encode()) for path, why in pack.left_out[: words.TOLD_LIMIT])
        return words.Moved(entries=pack.entries, size=sent, omitted=pack.omitted, left_out=told)

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


Transfer = UploadFile | UploadTree | DownloadFile | DownloadTree


def begin(request: words.Upload | words.Download) -> Transfer:
    """What will move the bytes. Raises `OSError`, `Refused`, and then nothing is open."""
    if isinstance(request, words.Upload):
        return UploadTree(request) if request.tar else UploadFile(request)
    return DownloadTree(request) if request.tar else DownloadFile(request)


def run(transfer: Transfer, sockets: Sockets, path: bytes) -> None:
    """Move the bytes, to whatever end; it is told, and everything is closed."""
    outcome: words.TransferEnd
    try:
        outcome = transfer.run(sockets)
    except BaseException as error:  # noqa: BLE001 - whoever waits at the other end must be told whatever happened
        outcome = fault_of(error, path)
    sockets.end(outcome)


def fault_of(error: BaseException, path: bytes) -> words.FileFault:
    """An exception in words. `path` is the call's; an error that knows better says so."""
    if isinstance(error, Refused):
        return words.FileFault(errno=None, message=error.message, path=error.path or path, stage=error.stage)
    if isinstance(error, ArchiveError):
        return words.FileFault(errno=None, message=error.message, path=error.path or path, stage="archive")
    if isinstance(error, OSError):
        named = error.filename
        told = os.fsencode(named) if isinstance(named, str) and named != "." else path
        return words.FileFault(errno=error.errno, message=error.strerror or str(error), path=told)
    return words.FileFault(errno=None, message=f"a fault of the worker's: {error!r}", path=path, stage="worker")


def _parent_or_none(path: bytes) -> tuple[int, bytes]:
    try:
        return view.open_parent(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return -1, b""  # the root, `.` or `..`: there already


def _refuse_too_big(fd: int, size: int | None) -> None:
    if not size:
        return
    disk = os.fstatvfs(fd)
    # A file system that does not say (0 blocks in all) is tried.
    if disk.f_blocks and size > disk.f_bavail * disk.f_frsize:
        raise OSError(errno.ENOSPC, f"{size} bytes are to come, {disk.f_bavail * disk.f_frsize} are free")


def _send_file(stream: socket.socket, fd: int, size: int) -> int:
    """Send the first `size` bytes, or as many as there are; how many."""
    sent = 0
    try:
        while sent < size and (count := os.sendfile(stream.fileno(), fd, sent, min(_PIECE_BYTES, size - sent))):
            sent += count
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while sent < size and (data := os.pread(fd, min(_PIECE_BYTES, size - sent), sent)):
            stream.sendall(data)
            sent += len(data)
    return sent
