"""A guarded folder's file system: the program itself, one thread, one process per folder.

`serve` is called in a forked child of the launcher that has become the owner of the source already, so what it writes is the owner's.

Rules
- One request after the other. A source that hangs hangs its folder, and no other; whoever ends the process ends that.
- A request that fails is answered with its errno and hurts no other. One that breaks the protocol is answered with EIO.
- It ends when the file system is unmounted, and when the launcher's end of `control` is closed; users then see ECONNABORTED or ENOTCONN.

Source: Documentation/filesystems/fuse.rst, fuse(4).
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial

from coworkd.folderfs import (
    operations_change,
    operations_look,
    operations_make,
    operations_move,
    operations_open,
)
from coworkd.folderfs.asks import Asks
from coworkd.folderfs.control import Control
from coworkd.folderfs.folder import Answer, Folder, number_of
from coworkd.folderfs.fuse_words import (
    OUT_HEADER,
    REQUEST_BYTES,
    Op,
    ProtocolError,
    Request,
    compose_error,
    compose_init,
    parse_request,
)
from coworkd.folderfs.journal import JournaledNames
from coworkd.folderfs.operations_remove import Removals
from coworkd.folderfs.shown import Shown
from coworkd.folderfs.told import Told
from coworkd.model.folder import DeleteRule
from coworkd.system import descriptors

ASK_TIMEOUT_S = 300.0
"""Until the first `Rule` says another."""
DIRECTORIES = 2000
_SPARE_DESCRIPTORS = 128
_TURNED_AWAY = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
_ENDED = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.EBADF})
_CHANGING = frozenset(
    {
        Op.SETATTR,
        Op.SYMLINK,
        Op.MKNOD,
        Op.MKDIR,
        Op.UNLINK,
        Op.RMDIR,
        Op.RENAME,
        Op.RENAME2,
        Op.LINK,
        Op.WRITE,
        Op.SETXATTR,
        Op.REMOVEXATTR,
        Op.CREATE,
        Op.FALLOCATE,
        Op.COPY_FILE_RANGE,
        Op.TMPFILE,
    }
)


def serve(
    *,
    fuse_fd: int,
    source_fd: int,
    control: socket.socket,
    journal_fd: int | None,
    uid: int,
    gid: int,
    deletes: DeleteRule,
    read_only: bool = False,
) -> None:
    """Serve until the file system is unmounted, or `control` ends (the launcher is gone).

    `source_fd` is a path descriptor (O_PATH) of the source's directory; everything is shown as of `uid` and `gid`, the session's.
    Descriptors stay the caller's. The umask and the limit of descriptors are changed: the process is for this alone. Raises `OSError` where
    the source cannot even be looked at.
    """
    os.umask(0)
    descriptors.raise_descriptor_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    directories = min(DIRECTORIES, limit // 4)
    told = Told(control)
    folder = Folder(
        source_fd,
        shown=Shown(uid, gid),
        uid=uid,
        gid=gid,
        names=JournaledNames(journal_fd),
        told=told,
        descriptors=directories,
        open_files=max(16, limit - directories - _SPARE_DESCRIPTORS),
    )
    server = Server(fuse_fd, folder, control, deletes=deletes, read_only=read_only)
    gc.freeze()
    try:
        server.run()
    finally:
        server.close()


class Server:
    """The loop over the kernel's requests and the supervisor's words. `run` returns at the end, `close` lets go."""

    def __init__(
        self, fuse_fd: int, folder: Folder, control: socket.socket, *, deletes: DeleteRule, read_only: bool
    ) -> None:
        self._fuse_fd = fuse_fd
        self._folder = folder
        self._control_fd = control.fileno()
        self._told = folder.told
        self._asks = Asks(folder.told, ASK_TIMEOUT_S)
        removals = Removals(folder, self._asks, deletes)
        self._control = Control(
            control,
            source_fd=folder.source_fd,
            told=folder.told,
            asks=self._asks,
            removals=removals,
            answer=self.answer,
        )
        modules = (operations_look, operations_open, operations_make, operations_change, operations_move)
        self._operations: dict[int, Callable[[Request], Answer]] = {
            op: partial(do, folder) for each in modules for op, do in each.OPERATIONS.items()
        }
        self._operations |= {Op.UNLINK: removals.remove, Op.RMDIR: removals.remove}
        self._operations |= {Op.INIT: compose_init, Op.INTERRUPT: self._interrupt, Op.DESTROY: _say_nothing}
        if read_only:
            self._operations |= dict.fromkeys(_CHANGING, _refuse_change)
            self._operations[Op.OPEN] = partial(_open_to_read, folder)

    def run(self) -> None:
        """Until there is nothing to serve any more."""
        os.set_blocking(self._fuse_fd, False)
        buffer = memoryview(bytearray(REQUEST_BYTES))
        poller = select.poll()
        poller.register(self._fuse_fd, select.POLLIN)
        poller.register(self._control_fd, select.POLLIN)
        trim = self._folder.nodes.trim
        listening_for_room = False
        while True:
            for fd, events in poller.poll(self._patience_ms()):
                if fd == self._fuse_fd:
                    if not self._take(buffer):
                        return
                    trim()
                elif not self._control_is_ready(events):
                    return
            self._keep_time()
            if self._told.stuck != listening_for_room:
                listening_for_room = self._told.stuck
                poller.modify(self._control_fd, select.POLLIN | (select.POLLOUT if listening_for_room else 0))

    def close(self) -> None:
        """Close every descriptor that is ours."""
        self._asks.close()
        self._folder.close()

    def _take(self, buffer: memoryview) -> bool:
        """Read one request and answer it; False at the end."""
        try:
            length = os.readv(self._fuse_fd, (buffer,))
        except OSError as error:
            return error.errno in _TURNED_AWAY
        try:
            request = parse_request(buffer[:length])
        except ProtocolError as error:
            print(f"coworkd: a folder's request cannot be read: {error}", file=sys.stderr, flush=True)
            return self._write(compose_error(error.unique, errno.EIO)) if error.unique else True
        return self.answer(request.unique, self._handle(request))

    def _handle(self, request: Request) -> Answer:
        operation = self._operations.get(request.opcode)
        if operation is None:
            return errno.ENOSYS
        try:
            return operation(request)
        except OSError as error:
            number = number_of(error)
            if number == errno.ENFILE:
                self._folder.nodes.shrink()
            return number
        except ProtocolError:
            return errno.EPROTO
        except Exception:  # noqa: BLE001 - a mistake of ours is that request's failure, not the end of the folder
            traceback.print_exc()
            return errno.EIO

    def answer(self, unique: int, answer: Answer) -> bool:
        """Answer the request; False at the end."""
        if answer is None:
            return True
        if isinstance(answer, int):
            return self._write(compose_error(unique, answer))
        return self._write(OUT_HEADER.pack(16 + len(answer), 0, unique), answer)

    def _write(self, *pieces: bytes | memoryview) -> bool:
        """False at the end. A request that is no longer waited for is nothing."""
        try:
            os.writev(self._fuse_fd, pieces)
        except OSError as error:
            if error.errno in _ENDED:
                return False
            if error.errno != errno.ENOENT:
                print(f"coworkd: a folder's answer was refused: {error}", file=sys.stderr, flush=True)
        return True

    def _interrupt(self, request: Request) -> Answer:
        self._asks.interrupt(request.words[0])
        return None

    def _control_is_ready(self, events: int) -> bool:
        if events & select.POLLOUT:
            self._told.flush()
        return not events & ~select.POLLOUT or self._control.receive()

    def _patience_ms(self) -> float | None:
        told, asks = self._told.due_in_s(), self._asks.due_in_s()
        if told is None and asks is None:
            return None
        return 1 + 1000 * min(each for each in (told, asks) if each is not None)

    def _keep_time(self) -> None:
        if self._told.due_in_s() == 0.0:
            self._told.flush()
        if self._asks.due_in_s() == 0.0:
            for ask in self._asks.given_up():
                self._asks.drop(ask)
                self.answer(ask.unique, errno.EINTR)
            self._control.refuse_overdue()


def _say_nothing(_request: Request) -> Answer:
    return None


def _refuse_change(_request: Request) -> Answer:
    return errno.EROFS


def _open_to_read(folder: Folder, request: Request) -> Answer:
    flags = request.words[0]
    if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
        return errno.EROFS
    return operations_open.open_(folder, request)
