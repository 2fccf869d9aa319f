"""The worker of `file.*`: a program with a session's rights and view, that works on files for coworkd.

Rules
- It speaks the words of `model.files` over one SEQPACKET socket, and ends with it.
- Each request has a thread, at most `REQUESTS` at once; more wait in the socket. One that hangs with a share holds nobody else up:
  coworkd has a deadline, and ends the worker.
- Everything is imported before it serves: its root is then the session's, and not where its own code lies.
- When its socket ends it gives the transfers `GRACE_S` to take away what they had begun: their sockets have ended too.
- What it is sent is coworkd's and trusted in form; what it finds in files is the session's and is not.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from coworkd.model import files as words
from coworkd.system.packet import RECEIVE_ARGUMENTS, pack, unpack
from coworkd.workers import files_transfer, files_verbs
from coworkd.workers.files_remove import remove_some
from coworkd.workers.files_view import Refused

REQUESTS = 16
GRACE_S = 5.0
_LOOK_S = 0.01
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[words.ToWorker] = msgspec.msgpack.Decoder(words.ToWorker)
_VERBS: dict[type, Callable[[Any], words.FromWorker]] = {
    words.ReadSome: files_verbs.read_some,
    words.WriteWhole: files_verbs.write_whole,
    words.LookAt: files_verbs.look_at,
    words.ListSome: files_verbs.list_some,
    words.MakeDirectory: files_verbs.make_directory,
    words.MoveEntry: files_verbs.move_entry,
    words.RemoveSome: remove_some,
}


def serve(connection: socket.socket) -> None:
    """Work until the end of `connection`, which is ours to close. Raises `BrokenPacket`, `MsgspecError` for what is not."""
    # Modes are as they were asked for; a socket whose reader is gone is an error like any other.
    os.umask(0)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with connection:
        _Worker(connection).run()


class _Worker:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(True)
        self._answering = threading.Lock()
        self._room = threading.Semaphore(REQUESTS)
        self._transfers = threading.Semaphore(words.TRANSFERS_PER_WORKER)
        self._moving: set[int] = set()
        """The requests whose bytes move."""

    def run(self) -> None:
        while True:
            data, ancillary, flags, _ = self._connection.recvmsg(*RECEIVE_ARGUMENTS)
            if not data:
                break
            message, fds = unpack(data, ancillary, flags)
            request = _decoder.decode(message)
            self._room.acquire()
            try:
                threading.Thread(target=self._handle, args=(request, fds), daemon=True).start()
            except RuntimeError:
                # The session has as many processes as it may: what needs no thread is done all the same.
                self._handle_here(request, fds)
        deadline = time.monotonic() + GRACE_S
        while self._moving and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def _handle_here(self, request: words.ToWorker, fds: list[int]) -> None:
        if not isinstance(request, (words.Upload, words.Download)):
            self._handle(request, fds)
            return
        self._room.release()
        for fd in fds:
            os.close(fd)
        what = "the session has as many processes as it may have"
        self._answer(words.FileFault(id=request.id, errno=None, message=what, path=request.path, stage="transfers"))

    def _handle(self, request: words.ToWorker, fds: list[int]) -> None:
        transfer: Callable[[], None] | None = None
        try:
            if isinstance(request, (words.Upload, words.Download)):
                answer, transfer = self._begin(request, fds)
            else:
                answer = _VERBS[type(request)](request)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer must be told whatever happened
            answer = msgspec.structs.replace(files_transfer.fault_of(error, request.path), id=request.id)
        finally:
            self._room.release()
        self._answer(answer)
        if transfer is not None:
            transfer()

    def _begin(
        self, request: words.Upload | words.Download, fds: list[int]
    ) -> tuple[words.FromWorker, Callable[[], None]]:
        sockets = files_transfer.Sockets(socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))
        try:
            if not self._transfers.acquire(blocking=False):
                raise Refused("transfers", f"the session has {words.TRANSFERS_PER_WORKER} transfers under way")
            try:
                transfer = files_transfer.begin(request)
            except BaseException:
                self._transfers.release()
                raise
        except BaseException:
            sockets.close()
            raise

        self._moving.add(request.id)

        def run() -> None:
            try:
                files_transfer.run(transfer, sockets, request.path)
            finally:
                self._moving.discard(request.id)
                self._transfers.release()

        if isinstance(transfer, (files_transfer.DownloadFile, files_transfer.DownloadTree)):
            return transfer.begun, run
        return words.FileDone(id=request.id), run

    def _answer(self, answer: words.FromWorker) -> None:
        buffers, ancillary, memfd = pack(_encoder.encode(answer))
        try:
            with self._answering:
                self._connection.sendmsg(buffers, ancillary, socket.MSG_NOSIGNAL)
        except OSError:
            return  # coworkd is gone, and the loop sees it too
        finally:
            if memfd >= 0:
                os.close(memfd)
