"""The launcher's parent: ends what the launcher leaves behind when it is killed.

bubblewrap ties its init to its monitor only at the end of the set-up, and its monitor's end is not its init's before that. A
launcher that dies in those milliseconds would leave a sandbox behind that nobody knows of, and its command would run on. The kernel
gives the orphans of a dead subreaper to the next one above it: that is the guard, which does nothing else until then.

Rules: no thread, no loop, no cgroup needed; a TERM is handed on to the launcher; a guard that is killed takes the launcher with it.
Sources: prctl(2) (PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG), proc(5) (children).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from coworkd.system import prctl

_LOOK_AGAIN_S = 0.002


def stand_guard() -> int | None:
    """Fork. None in the child, which is to be the launcher; in the guard its exit status, once nothing of it is left.

    The status is 128 + n for a launcher that signal n has ended.
    """
    prctl.set_child_subreaper()
    guard_pid = os.getpid()
    # A TERM that comes before there is anyone to hand it to waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    launcher_pid = os.fork()
    if launcher_pid == 0:
        prctl.set_pdeathsig(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        if os.getppid() != guard_pid:
            os._exit(1)
        return None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _send(launcher_pid, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    _, status = os.waitpid(launcher_pid, 0)
    end_orphans()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end_orphans(*, limit_s: float = 10.0) -> None:
    """Kill and reap every child there is, and those that come to us meanwhile. One that hangs in the kernel (a share that does not
    answer) is left to who comes after us, once `limit_s` have passed.
    """
    deadline = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            # Who dies hands its children to us before it can be reaped: so none comes after the look that is not looked for again.
            for pid in _children():
                _send(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(_LOOK_AGAIN_S)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
