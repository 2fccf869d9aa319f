"""A process that stands still where a test wants it: traced, which is neither a stop that its parent sees nor an end.

Who is held cannot end either, though it was killed: as in the kernel's own uninterruptible waits. What it has forked goes on, and cannot
end.
Source: ptrace(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

_GETEVENTMSG, _CONT, _SEIZE, _INTERRUPT = 0x4201, 7, 0x4206, 0x4207
_TRACE_CLONE, _TRACE_EXIT = 1 << 3, 1 << 6
_WALL = 0x40000000
_WAIT_S = 60.0

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype, _ptrace.argtypes = ctypes.c_long, (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Holder:
    """Whose thread is the tracer: with its end all whom it holds go on."""

    def __init__(self, pid: int, *, forked: bool) -> None:
        self._pid = pid
        self._begun, self._over = threading.Event(), threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._hold, args=(forked,), daemon=True)

    def begin(self) -> None:
        self._thread.start()
        assert self._begun.wait(_WAIT_S)
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        self._over.set()
        self._thread.join(_WAIT_S)

    def _hold(self, forked: bool) -> None:
        try:
            _call(_SEIZE, self._pid, _TRACE_CLONE | _TRACE_EXIT)
            if not forked:
                _call(_INTERRUPT, self._pid)
                os.waitpid(self._pid, _WALL)
        except OSError as error:
            self._error = error
            return
        finally:
            self._begun.set()
        if forked:
            os.waitpid(self._pid, _WALL)
            child = ctypes.c_ulong()
            _call(_GETEVENTMSG, self._pid, ctypes.addressof(child))
            os.waitpid(child.value, _WALL)
            _call(_CONT, child.value)
        self._over.wait(_WAIT_S)


def _call(request: int, pid: int, data: int = 0) -> None:
    if _ptrace(request, pid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def held(pid: int, *, forked: bool) -> Iterator[None]:
    """For the block `pid` stands still: at once, or (`forked`) as soon as it has forked, which it has to do in the block."""
    holder = _Holder(pid, forked=forked)
    holder.begin()
    try:
        yield
    finally:
        holder.end()
