"""A child of the launcher's that forks its standbys for it.

A fork makes every page of who forks shared, and the first write to each costs a copy, in both: a launcher that forks for every command
pays for that in the middle of the next. So it has this child, made once, which does nothing else; what it forks is the launcher's own
child (CLONE_PARENT), which waits for it and whose death it dies of.

    launcher ═SEQPACKET═ forker: station, descriptors ─▶ ┬ clone3(CLONE_PARENT | CLONE_INTO_CGROUP) ─▶ child.run(station)
                                                          └ the child's pid, or an errno below zero

Rules
- One question at a time, and it is answered at once: one that hangs is killed after `_LOOKS`, and so is one with which the talk has failed
  in any other way. No answer is ever taken for that of a later question. Nobody else is served meanwhile, so that is three times what a
  fork was seen to take at worst, beside forty that wanted the same core or had used up its memory; one that somebody has stopped is
  killed as soon as that is seen. Looks are counted, not seconds: a guest that was paused has lost none.
- The kill is the end of its forking, too: clone(2) looks for it before it adds the child. A child that is there by then can be found in its
  cgroup, and ends with its socket.
- One that is gone is made again with the next question. The question itself is not asked twice: it may have been heard, and two
  children must never wait at one socket.
- `begin` makes the first one before the launcher has loaded what it needs itself: so it, and what it forks, have little to copy and to
  unmap. One that is made later has the launcher's memory, and serves as well, if not as fast.
- It keeps no descriptor of the launcher's but its end of the socket, and ends with that, or with the launcher.

Sources: clone(2), pidfd_open(2), waitid(2), prctl(2) (PR_SET_PDEATHSIG), unix(7).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket

from coworkd.launcher import child
from coworkd.launcher.formats import Formats
from coworkd.system import clone, descriptors, prctl

_LOOK_S, _LOOKS = 0.05, 10
_QUESTION_BYTES, _ANSWER_BYTES = 128, 16
_DESCRIPTORS = ("mount_namespace", "network_namespace", "order_fd", "error_fd")
"""Of a station, in its order and in that in which they are sent; the cgroup's follows where there is one."""
_NAME = "coworkd-forker"


class Forker:
    """The launcher's side. Owns its end of the socket; the process is reaped by whoever reaps the launcher's children."""

    def __init__(self, formats: Formats) -> None:
        self.formats = formats
        self._link: socket.socket | None = None
        self._pidfd = -1

    def fork(self, station: child.Station, cgroup_fd: int | None) -> int:
        """The pid of a child that takes `station`, born in the cgroup `cgroup_fd`. Descriptors stay the caller's.

        Raises `OSError`; a `ConnectionError` where the forker has gone, a `TimeoutError` where it hung and is killed now: there may be a
        child, which ends with the sockets of `station`.
        """
        link = self._link or self.begin()
        fds = [getattr(station, name) for name in _DESCRIPTORS]
        if cgroup_fd is not None:
            fds.append(cgroup_fd)
        question = b"%d %d %d %d %d" % (*station[:3], station.ahead, cgroup_fd is not None)
        try:
            socket.send_fds(link, [question], fds)
            answer = int(self._hear(link))
        except OSError:
            self.close()
            raise
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    def _hear(self, link: socket.socket) -> bytes:
        """Its answer. Its end is that of its process: a child that was frozen at its birth has a copy of its socket."""
        coming = select.poll()
        for each in (link.fileno(), self._pidfd):
            coming.register(each, select.POLLIN)
        for _ in range(_LOOKS):
            come = dict(coming.poll(_LOOK_S * 1000))
            if come or self._is_stopped():
                break
        if not come:
            raise TimeoutError(errno.ETIMEDOUT, "the process that forks for it hangs")
        said = link.recv(_ANSWER_BYTES) if link.fileno() in come else b""
        if not said:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return said

    def _is_stopped(self) -> bool:
        """By a signal; who stands still otherwise goes on by itself."""
        try:
            return os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return False

    def close(self) -> None:
        """End it, if it has not ended. Idempotent."""
        if self._link is not None:
            self._link.close()
            with contextlib.suppress(ProcessLookupError):  # it may be reaped already
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._link = None

    def begin(self) -> socket.socket:
        """Make it; the launcher's end. Raises `OSError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        launcher_pid = os.getpid()
        # A TERM that is the new one's alone must not end us by way of the wakeup, which is both's at its birth.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        try:
            pid = os.fork()
            if pid == 0:
                _serve(theirs, launcher_pid, self.formats)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            ours.close()  # which ends it, too
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
            theirs.close()
        self._link = ours
        return ours


# -- inside the child ---------------------------------------------------------------------------------------------


def _serve(link: socket.socket, launcher_pid: int, formats: Formats) -> None:
    """Its whole life. Never returns."""
    try:
        gc.freeze()  # what is the launcher's is never collected here: its numbers of descriptors are others' by then
        signal.set_wakeup_fd(-1)
        for number in child.CAUGHT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        descriptors.close_all_but((0, 1, 2, link.fileno()))
        prctl.set_pdeathsig(signal.SIGKILL)
        prctl.set_name(_NAME)
        while os.getppid() == launcher_pid and _answer(link, formats):
            pass
    finally:
        os._exit(0)


def _answer(link: socket.socket, formats: Formats) -> bool:
    """One question; False where nobody asks any more."""
    data, fds, _, _ = socket.recv_fds(link, _QUESTION_BYTES, len(_DESCRIPTORS) + 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return False
    try:
        answer = _fork(data, fds, formats)
    except OSError as error:
        answer = -(error.errno or errno.EIO)
    for fd in fds:
        os.close(fd)
    link.send(b"%d" % answer)
    return True


def _fork(question: bytes, fds: list[int], formats: Formats) -> int:
    launcher_pid, uid, gid, ahead, in_cgroup = (int(word) for word in question.split())
    if len(fds) != len(_DESCRIPTORS) + in_cgroup:
        raise OSError(errno.EMFILE, "there was no room here for what came along")
    pid = clone.fork_for_parent(fds[-1] if in_cgroup else None)
    if pid == 0:
        given = dict(zip(_DESCRIPTORS, fds, strict=False))
        station = child.Station(launcher_pid=launcher_pid, uid=uid, gid=gid, ahead=bool(ahead), **given)
        child.run(station, formats)
    return pid
