"""The main thread of the process that owns VZ's objects: a run loop, and how other threads hand it work.

Rules
- VZ's objects are made, called and let go on this thread only; a machine made without a queue of its own uses the main one.
- An exception in handed work ends the process: half-done state beside a running machine is worse than a machine that stops.
- `run` looks at least every `LOOK_S` whether it is to end, so a wake-up that is lost costs no more than that.

Source: Apple, VZVirtualMachine ("all operations on the virtual machine must be done on its queue"), NSOperationQueue mainQueue, NSRunLoop.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from host_stub.vz.framework import Framework

LOOK_S = 0.5
_IDLE_S = 0.01
EXIT_BUG = 70


class MainLoop:
    """Made on the main thread, run there; `call` and `end` come from any."""

    def __init__(self, framework: Framework) -> None:
        self._framework = framework
        self._queue = framework.foundation.NSOperationQueue.mainQueue()
        self._status: int | None = None
        self.ended = threading.Event()

    def call(self, work: Callable[[], None]) -> None:
        """Do it on the main thread, after what was handed in before."""
        self._queue.addOperationWithBlock_(self.guard(work))

    def guard(self, work: Callable[..., Any], failing: Any = None) -> Callable[..., Any]:
        """`work` as Objective-C may call it: nothing is raised, `failing` returned instead, and the loop ends."""

        def guarded(*arguments: Any) -> Any:
            try:
                return work(*arguments)
            except BaseException:  # noqa: BLE001 - it would cross Objective-C, which ends the process without a word
                traceback.print_exc(file=sys.stderr)
                self.end(EXIT_BUG)
                return failing

        return guarded

    def end(self, status: int) -> None:
        """Let `run` return; the first status counts."""
        if self._status is None:
            self._status = status

    def run(self) -> int:
        """Until `end`; its status."""
        foundation, objc = self._framework.foundation, self._framework.objc
        loop = foundation.NSRunLoop.currentRunLoop()
        while self._status is None:
            with objc.autorelease_pool():
                until = foundation.NSDate.dateWithTimeIntervalSinceNow_(LOOK_S)
                if not loop.runMode_beforeDate_(foundation.NSDefaultRunLoopMode, until):
                    time.sleep(_IDLE_S)  # it had nothing to wait on, and must not spin
        self.ended.set()
        return self._status
