"""A command's terminal: the master of a pty that was opened inside its sandbox and sent out.

Rules
- Whoever sends it is not trusted: what comes must be the master of a pty, open for both ways; anything else is closed,
  and it must come within `ARRIVAL_S`.
- The description is shared with the sandbox, which could make it blocking at any time. So reads and writes run in a
  thread: a command that plays with it stops its own terminal and nothing else, until its tree is killed.
- EIO is the end: nobody has the other side open any more (pty(7), Linux's tty_io).
- Output cannot be spliced from a terminal. What was read is in the spool's file before anything else is done, in the same thread: a
  coworkd that is killed between the two calls, and only there, loses it.

Sources: pty(7), ioctl_tty(2), unix(7) (SCM_RIGHTS).
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios
import threading
from collections.abc import Callable

import trio

from coworkd.model.errors import InvalidParams, InvalidState
from coworkd.model.process import TtySize
from coworkd.services.spools import Spool
from coworkd.system import spool_file

ARRIVAL_S = 28.0
"""Nearly as long as its command has to begin (`ProcessLimits.start_s`), and over before that: so it is said what did not come."""
_READ_BYTES = 64 * 1024
_STUCK_S = 5.0
_PTMX = os.makedev(5, 2)
_TIOCGPTN = 0x80045430
_MESSAGE_BYTES = 16
_FD_LIMIT = 4


class NoTerminal(Exception):
    """The sandbox did not send the master of a pty; the text says what came instead."""


async def receive_master(sock: socket.socket) -> int:
    """Wait for the master on `sock`; the caller owns what is returned. Raises `NoTerminal`.

    It stays in `sock` as well, until `drop_message`: who has a copy of that can receive it again.
    """
    sock.setblocking(False)
    with trio.move_on_after(ARRIVAL_S):
        await trio.lowlevel.wait_readable(sock)
        return _copy_master(sock)
    raise NoTerminal(f"the terminal did not come out of the sandbox within {ARRIVAL_S:g} s")


def drop_message(sock: socket.socket) -> None:
    """What `receive_master` took leaves the socket, where it counts against its sender's limit of descriptors."""
    with contextlib.suppress(OSError):
        sock.recv(_MESSAGE_BYTES)  # without room for descriptors: the kernel closes them


def _copy_master(sock: socket.socket) -> int:
    try:
        _, ancillary, flags, _ = sock.recvmsg(
            _MESSAGE_BYTES, socket.CMSG_SPACE(_FD_LIMIT * 4), socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise NoTerminal(f"the terminal's socket failed: {error.strerror}") from error
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if len(fds) != 1 or flags & socket.MSG_CTRUNC:
            raise NoTerminal(f"the sandbox sent {len(fds)} descriptors, not a terminal")
        check_master(fds[0])
        return fds.pop()
    finally:
        for fd in fds:
            os.close(fd)


def check_master(fd: int) -> None:
    """Raise `NoTerminal` unless `fd` is the master of a pty, open for reading and writing."""
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
        raise NoTerminal("the sandbox sent a descriptor that is no pty master")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_ACCMODE != os.O_RDWR or flags & os.O_PATH:
        raise NoTerminal("the sandbox sent a pty master that is not open for reading and writing")
    try:
        fcntl.ioctl(fd, _TIOCGPTN, b"\0\0\0\0")
    except OSError as error:
        raise NoTerminal(f"the sandbox sent something that is no pty: {error.strerror}") from error


class _Held:
    """Descriptors that threads use: closed once they are retired and no call is inside, so their numbers are never another's."""

    def __init__(self, fd: int, kept_fd: int) -> None:
        """`fd` is the terminal, `kept_fd` is where its output goes."""
        self._fd = fd
        self._kept_fd = kept_fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._lock = threading.Lock()
        self._calls = 0
        self._retired = False

    def keep(self, limit_bytes: int) -> int:
        """Keep what is there, as far as it comes at once; raises as read(2) where that is nothing, and as write(2).

        A terminal gives at most 4 KiB at a time, and to come here costs more than to read that.
        """
        self._enter()
        try:
            kept = self._keep_once(limit_bytes)
            while kept and kept < limit_bytes and self._poll.poll(0):
                try:
                    more = self._keep_once(limit_bytes - kept)
                except OSError:
                    return kept  # the next call meets it again
                if not more:
                    return kept
                kept += more
            return kept
        finally:
            self._leave()

    def _keep_once(self, limit_bytes: int) -> int:
        data = os.read(self._fd, limit_bytes)
        spool_file.append(self._kept_fd, data)
        return len(data)

    def write(self, data: memoryview) -> int:
        self._enter()
        try:
            return os.write(self._fd, data)
        finally:
            self._leave()

    def retire(self) -> None:
        with self._lock:
            self._retired = True
            self._close_if_unused()

    def _enter(self) -> None:
        with self._lock:
            if self._retired:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._calls += 1

    def _leave(self) -> None:
        with self._lock:
            self._calls -= 1
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._retired and not self._calls:
            os.close(self._fd)
            os.close(self._kept_fd)


class Terminal:
    """The master side of one pty: a pump into `spool`, a sink for input, a size. Owns the descriptor until `close`."""

    def __init__(self, process: str, fd: int, spool: Spool, ended: Callable[[], None]) -> None:
        """`fd` was checked by `check_master`. `ended` is called once at the end of the terminal, not after `close`."""
        os.set_blocking(fd, False)
        self._process = process
        self._fd = fd
        self._held = _Held(fd, os.dup(spool.fileno()))
        self._spool = spool
        self._ended = ended
        self._open = True
        self._reading = trio.CapacityLimiter(1)
        self._writing = trio.CapacityLimiter(1)

    async def run(self) -> None:
        """Read until the end or `close`."""
        try:
            while self._open:
                await self._spool.wait_room()
                if not self._open:
                    return
                await trio.lowlevel.wait_readable(self._fd)
                kept = await self._keep()
                if kept is None:
                    continue
                if not kept:
                    break
                self._spool.appended(kept)
            if self._open:
                self._spool.finish()
                self._ended()
        except trio.ClosedResourceError:
            return
        finally:
            self.close()

    async def write_some(self, data: memoryview, /) -> int:
        """As `stdin.Sink.write_some`: a terminal nobody has open any more is a broken pipe."""
        while self._open:
            await trio.lowlevel.wait_writable(self._fd)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _STUCK_S):
                try:
                    return await trio.to_thread.run_sync(
                        self._held.write, data, limiter=self._writing, abandon_on_cancel=True
                    )
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise BrokenPipeError(errno.EPIPE, "the terminal is closed") from error
            self.close()
            raise BrokenPipeError(errno.EPIPE, "the command made its terminal stick")
        raise trio.ClosedResourceError("the terminal was closed here")

    def resize(self, size: TtySize) -> None:
        """Set the size; the kernel tells the foreground group with SIGWINCH. Raises `InvalidState` after the end."""
        if not self._open:
            raise InvalidState(f"the terminal of process {self._process} is closed", process=self._process)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    def fileno(self) -> int:
        """The master, or -1 after `close`; it stays this object's."""
        return self._fd if self._open else -1

    def close(self) -> None:
        """Hang up: the command's group gets SIGHUP where nobody else keeps the master. Idempotent."""
        if self._open:
            self._open = False
            trio.lowlevel.notify_closing(self._fd)
            self._held.retire()
            self._spool.finish()

    async def _keep(self) -> int | None:
        """How much was there; 0 at the end, None where there was nothing after all."""
        limit = min(_READ_BYTES, max(1, self._spool.room()))
        try:
            return await trio.to_thread.run_sync(self._held.keep, limit, limiter=self._reading, abandon_on_cancel=True)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EIO, errno.EBADF):
                return 0
            raise


def check_size(size: TtySize) -> TtySize:
    """Return `size`, or raise `InvalidParams` where the kernel's unsigned shorts cannot hold it or it is empty."""
    for name, value in (("rows", size.rows), ("cols", size.cols)):
        if not 1 <= value <= 0xFFFF:
            raise InvalidParams(f"{name} must be 1 to 65535, not {value}", key=name)
    return size
