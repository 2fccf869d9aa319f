"""Children that end with us, whatever happens to us.

Linux: setpriv(1) asks the kernel to kill the child when its parent ends, then a shell looks whether that parent is still there (it may
have ended before the asking), and becomes the program. Both exec, so the pid stays. The kernel means the parent's *thread*: a child is
started from the thread that calls, which must be one that lives as long as the child (trio's worker threads do not).
Elsewhere (macOS) there is no such asking: a shell stays between, starts the program, and kills it when a pipe from us ends.

Rules:
- A child has a session of its own, no stdin, and none of our descriptors but those named.
- Its stderr (and stdout) is read, and the last 16 KiB are kept: what it said is the reason for its end. A child that talks without end
  costs nothing more.
- `start` returns at once; whoever started it awaits `wait`, or calls `kill`, which is SIGKILL to its process group.

Sources: prctl(2) PR_SET_PDEATHSIG, setpriv(1), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import trio

from host_stub.words import Trouble

KEPT_BYTES = 16 << 10
_STILL_OURS = 'test "$PPID" = "$0" || exit 125; exec "$@"'
# fd 3 is the pipe. The watcher must not hold the child's output open, nor must the child hold the pipe.
_WATCHED = """
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ cat <&3; kill -KILL $child; } >/dev/null 2>&1 &
exec 3<&-
wait $child
status=$?
kill -KILL $! 2>/dev/null
exit $status
"""


class Child:
    """A program that runs, and what it says. Made by `start_child`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], output: int, leash: int | None) -> None:
        self.name = name
        self.pid = popen.pid
        self._popen = popen
        self._output = output
        self._leash = leash
        self._said = bytearray()
        self._ended = trio.Event()

    @property
    def status(self) -> int | None:
        """As subprocess says it (a signal is negative), or None while it runs."""
        return self._popen.returncode

    async def run(self) -> None:
        """Read what it says and reap it when it ends. Owned by the child's nursery; cancelled, it kills the child."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self._wait_for_exit()
                # What it started may hold its output open; what was said is there by now.
                nursery.cancel_scope.deadline = trio.current_time() + 0.2
        finally:
            self._end()
            self._ended.set()

    async def wait(self) -> int:
        """Its exit status, once it has ended and been reaped."""
        await self._ended.wait()
        status = self._popen.returncode
        return -signal.SIGKILL if status is None else status

    def kill(self) -> None:
        """SIGKILL to it and all it started; what is left is reaped by `run`."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def last_lines(self, count: int = 5) -> str:
        """What it said last, for a person."""
        lines = [line for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return "\n".join(lines[-count:])

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._output)
            try:
                data = os.read(self._output, 4096)
            except BlockingIOError:
                continue
            if not data:
                return
            self._said += data
            del self._said[:-KEPT_BYTES]

    async def _wait_for_exit(self) -> None:
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self.pid)
                try:
                    await trio.lowlevel.wait_readable(pidfd)
                finally:
                    os.close(pidfd)
            self._popen.wait()
        else:
            await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True)

    def _end(self) -> None:
        self.kill()
        self._popen.wait()
        os.close(self._output)
        if self._leash is not None:
            os.close(self._leash)


def start_child(
    name: str,
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    leash: bool | None = None,
) -> Child:
    """Start it; whoever calls runs its `run`. `leash` forces the way of macOS. Raises Trouble `cannot_start`."""
    leashed = sys.platform != "linux" if leash is None else leash
    reader, writer = os.pipe()
    held = os.pipe() if leashed else None
    try:
        popen = subprocess.Popen(
            _with_leash(argv) if leashed else _with_signal(argv),
            stdin=subprocess.DEVNULL if held is None else held[0],
            stdout=writer,
            stderr=writer,
            pass_fds=pass_fds,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        os.close(reader)
        if held is not None:
            os.close(held[1])
        raise Trouble(
            "cannot_start",
            f"{name} cannot be started: {error.strerror}",
            remedy="see that it is installed and may be run",
        ) from error
    finally:
        os.close(writer)
        if held is not None:
            os.close(held[0])
    os.set_blocking(reader, False)
    return Child(name, popen, reader, None if held is None else held[1])


def _with_signal(argv: Sequence[str]) -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _STILL_OURS, str(os.getpid()), *argv]


def _with_leash(argv: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", _WATCHED, "sh", *argv]
