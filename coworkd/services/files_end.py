"""A transfer of a worker's as the end of a stream: bytes on one socket, how it ended on another (`model.files`).

Rules
- The end of the bytes is told only with what the worker says of it; without its word the worker is gone, and the stream is lost.
- `close_write` is what makes an upload count; a `close` before it aborts it.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import sys
import termios
from collections.abc import Callable

import msgspec
import trio

from coworkd.model import files as words
from coworkd.model.errors import UNDECODABLE, CoworkError, Unavailable
from coworkd.services.files_faults import compose_error, left_out

_WORDS_BYTES = 128 * 1024
"""More than any end has: the paths that are named are few, and bounded."""
_SIOCOUTQ = termios.TIOCOUTQ
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[words.TransferEnd] = msgspec.msgpack.Decoder(words.TransferEnd)


class FileEnd:
    """Implements `model.stream.StreamEnd`. Owns both sockets."""

    def __init__(self, stream: socket.socket, control: socket.socket, session: str, *, upload: bool) -> None:
        stream.setblocking(False)
        control.setblocking(False)
        self._stream = stream
        self._control = control
        self._session = session
        self._upload = upload
        self._sent = 0
        self._received = 0
        self._writing = upload
        self.outcome: words.TransferEnd | None = None
        self.closed = trio.Event()

    def read_nowait(self, limit_bytes: int, /) -> bytes | None:
        try:
            data = self._stream.recv(limit_bytes)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # The worker has closed it with bytes of ours unread: it has said why before.
            data = b""
        if data:
            self._received += len(data)
            return data
        self._take_outcome()
        return b""

    async def wait_readable(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_readable(self._stream)

    def write_nowait(self, data: memoryview, /) -> int:
        if not self._writing:
            raise OSError(errno.EPIPE, "a download takes no bytes")
        try:
            count = self._stream.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        self._sent += count
        return count

    async def wait_writable(self) -> None:
        self._check_open()
        await trio.lowlevel.wait_writable(self._stream)

    def close_write(self) -> None:
        if not self._writing:
            return
        self._writing = False
        self._control.send(_encoder.encode(words.Finish(size=self._sent)), socket.MSG_NOSIGNAL)
        self._stream.shutdown(socket.SHUT_WR)

    def close(self, *, abort: bool = False) -> None:
        """Close; idempotent. An upload that was not closed for writing before is aborted, whatever `abort` says."""
        if self.closed.is_set():
            return
        self.closed.set()
        for each in (self._stream, self._control):
            trio.lowlevel.notify_closing(each)
            each.close()

    @property
    def finishing(self) -> bool:
        """All of an upload was sent: it is being made durable, which takes a slow disk its time."""
        return self._upload and not self._writing

    def waits_for_worker(self) -> tuple[int, int] | None:
        """Where the transfer stands, while it is the worker's turn to do something; None while it is the host's."""
        if self.closed.is_set():
            return None
        if self._upload:
            unread = _count(self._stream, _SIOCOUTQ)
            return (self._sent, unread) if unread or not self._writing else None
        return None if _count(self._stream, termios.FIONREAD) else (self._received, 0)

    def _take_outcome(self) -> None:
        """What the worker says of the end. Raises `CoworkError` unless it is a good one."""
        try:
            said = _receive_last(self._control)
        except (BlockingIOError, ConnectionResetError):
            said = b""
        if not said:
            raise Unavailable(
                f"the worker for files of session {self._session} ended before the transfer did", session=self._session
            )
        try:
            self.outcome = _decoder.decode(said)
        except UNDECODABLE as broken:
            raise Unavailable(
                f"the worker for files of session {self._session} broke off: {broken}", session=self._session
            ) from broken
        error = self._judge(self.outcome)
        if error is not None:
            raise error

    def _judge(self, outcome: words.TransferEnd) -> CoworkError | None:
        return (
            compose_error(outcome, self._session)
            if isinstance(outcome, words.FileFault)
            else left_out(outcome, self._session)
        )

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise trio.ClosedResourceError("this end was closed here")


def _receive_last(control: socket.socket) -> bytes:
    try:
        return control.recv(_WORDS_BYTES)
    except ConnectionResetError:
        # It closed with our `Finish` unread: that is told first, and what it has said comes after.
        return control.recv(_WORDS_BYTES)


async def watch_for_stall(
    end: FileEnd, stalled: Callable[[], None], *, stall_s: float, finish_s: float, every_s: float
) -> None:
    """Call `stalled` once the worker has done nothing for `stall_s` while it was its turn, or for `finish_s` at the end of an upload.

    Returns then, or when `end` is closed.
    """
    seen: tuple[int, int] | None = None
    since = trio.current_time()
    while not end.closed.is_set():
        with trio.move_on_after(every_s):
            await end.closed.wait()
            return
        stands = end.waits_for_worker()
        if stands is None or stands != seen:
            seen, since = stands, trio.current_time()
        elif trio.current_time() - since >= (finish_s if end.finishing else stall_s):
            stalled()
            return


def _count(connected: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(connected.fileno(), request, bytes(4)), sys.byteorder)
