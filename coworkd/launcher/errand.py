"""A child of the launcher that does one thing which may hang or takes rights of its own, and says once what came of it.

Rules
- The launcher never waits for it: `fileno` becomes readable when it has answered or died; after `deadline` its owner ends it.
- It holds no descriptor but the standard three, its own socket and those it was made for: a pipe of some command's that it held
  would have no end while it hangs.
- It dies with the launcher. Its report comes with descriptors; what was made and not handed on goes with it.
- It may go on as something else afterwards (a folder's file system, a worker): then its pid outlives its report.
- A child that hangs in the kernel is not waited for; it is reaped whenever the kernel lets go of it.

Sources: prctl(2) (PR_SET_PDEATHSIG), unix(7).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from coworkd.launcher.child import CAUGHT_SIGNALS, IGNORED_SIGNALS
from coworkd.model.errors import UNDECODABLE
from coworkd.model.folder import MountedAs
from coworkd.system import descriptors, packet, prctl

_WORDS_LIMIT = 4096
"""Characters of what is told of a failure."""


class Report(Struct, frozen=True, kw_only=True):
    """What came of it. Good where `failed` is None; the other fields are for those errands that have something to say by them."""

    failed: str | None = None
    """The step that failed."""
    errno: int | None = None
    message: str = ""
    mounted_as: MountedAs = "bind"
    degraded: tuple[str, ...] = ()
    is_directory: bool = True
    busy: bool = False
    leftovers: tuple[str, ...] = ()


class ErrandError(Exception):
    """A step failed, in words of ours; an `OSError` that nobody caught is told in the kernel's."""

    def __init__(self, failed: str, number: int | None, message: str) -> None:
        super().__init__(message)
        self.report = Report(failed=failed, errno=number, message=message[:_WORDS_LIMIT])


class Teller:
    """The child's end: `tell` once, at the end or before it goes on as something else."""

    def __init__(self, link: socket.socket, launcher_pid: int) -> None:
        self._link = link
        self._launcher_pid = launcher_pid

    def tell(self, report: Report, fds: Iterable[int] = ()) -> None:
        """`fds` stay the caller's."""
        data, ancillary, _ = packet.pack(msgspec.msgpack.encode(report), fds)
        self._link.sendmsg(data, ancillary)
        self._link.close()

    def die_with_launcher(self) -> None:
        """Again after each change of uid, which clears it."""
        prctl.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != self._launcher_pid:
            os._exit(1)


class Errand:
    """The launcher's end. `close` it when it has told; `kill` it at any time."""

    def __init__(
        self, work: Callable[[Teller], None], *, name: str, keep: Iterable[int] = (), deadline_s: float
    ) -> None:
        """Fork; `keep` stay the caller's. Raises `OSError`, and nothing stays then."""
        launcher_pid = os.getpid()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.fork()
        except OSError:
            self._link.close()
            raise
        finally:
            if getattr(self, "pid", -1) != 0:
                theirs.close()
        if self.pid == 0:
            _run(work, Teller(theirs, launcher_pid), name, (theirs.fileno(), *keep))
        self._link.setblocking(False)
        self.deadline = time.monotonic() + deadline_s
        self.gone = False
        """Whether it was reaped."""

    def fileno(self) -> int:
        return self._link.fileno()

    def take(self) -> tuple[Report, list[int]]:
        """Its report, once there is something to read, and the descriptors that came along, the caller's now."""
        try:
            data, ancillary, flags, _ = self._link.recvmsg(*packet.RECEIVE_ARGUMENTS)
            message, fds = packet.unpack(data, ancillary, flags)
        except (OSError, packet.BrokenPacket) as error:
            return Report(failed="errand", message=f"the child's answer cannot be read: {error}"), []
        if not message:
            return Report(failed="errand", message="the child died without an answer"), fds
        try:
            return msgspec.msgpack.decode(message, type=Report), fds
        except UNDECODABLE as error:
            for fd in fds:
                os.close(fd)
            return Report(failed="errand", message=f"the child's answer cannot be read: {error}"), []

    def reaped(self) -> None:
        """To be told: from here on its pid may be another's."""
        self.gone = True

    def kill(self) -> None:
        """End it, whatever it has become. It is reaped by the launcher, some time later."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing more is to be told."""
        self._link.close()


def _run(work: Callable[[Teller], None], teller: Teller, name: str, keep: Iterable[int]) -> None:
    """The child's whole life. Never returns: a forked child must never go on as a second launcher."""
    try:
        gc.freeze()  # what is the launcher's is never collected here: its numbers of descriptors may be others' by then
        signal.set_wakeup_fd(-1)
        for number in (*CAUGHT_SIGNALS, *IGNORED_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        descriptors.close_all_but((0, 1, 2, *keep))
        teller.die_with_launcher()
        prctl.set_name(name)
        work(teller)
    except BaseException as error:  # noqa: BLE001 - see above
        _tell_failure(teller, error)
        os._exit(1)
    os._exit(0)


def _tell_failure(teller: Teller, error: BaseException) -> None:
    if isinstance(error, ErrandError):
        report = error.report
    elif isinstance(error, OSError):
        report = Report(failed="system", errno=error.errno, message=_in_words(error))
    else:
        report = Report(failed="errand", message=repr(error)[:_WORDS_LIMIT])
    with contextlib.suppress(OSError):  # it has told before, or nobody listens any more
        teller.tell(report)


def _in_words(error: OSError) -> str:
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror or error}"[:_WORDS_LIMIT]
