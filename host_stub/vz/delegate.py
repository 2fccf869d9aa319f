"""The objects that VZ calls back: Objective-C classes in Python, made once for a framework.

Rules
- A delegate is held weakly by VZ: whoever sets one keeps it.
- VZ calls on the main thread. What is called here must not raise: an exception would cross Objective-C.
- A method whose name VZ calls has exactly the arguments of its protocol; PyObjC reads the signature from there.

Source: PyObjC, "Protocols" and "Underscores, and lots of them".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from host_stub.vz.framework import Framework


class Delegates(NamedTuple):
    """The classes. Instances get their callbacks as attributes, before they are given to VZ."""

    machine: Any
    """`on_stopped(error | None)`."""
    listener: Any
    """`on_connection(connection) -> bool`, whether it is taken."""
    waking: Any
    """`on_wake()`; observes as `woke:`."""


@functools.cache
def delegates(framework: Framework) -> Delegates:
    """A class of Objective-C may be made once in a process: hence the cache."""
    root: Any = framework.foundation.NSObject
    protocol: Callable[[str], Any] = framework.objc.protocolNamed

    class CoworkMachineDelegate(root, protocols=[protocol("VZVirtualMachineDelegate")]):  # type: ignore[call-arg, misc]
        on_stopped: Callable[[Any], None]

        def guestDidStopVirtualMachine_(self, _machine: Any) -> None:
            self.on_stopped(None)

        def virtualMachine_didStopWithError_(self, _machine: Any, error: Any) -> None:
            self.on_stopped(error)

    class CoworkListenerDelegate(root, protocols=[protocol("VZVirtioSocketListenerDelegate")]):  # type: ignore[call-arg, misc]
        on_connection: Callable[[Any], bool]

        def listener_shouldAcceptNewConnection_fromSocketDevice_(
            self, _listener: Any, connection: Any, _device: Any
        ) -> bool:
            return self.on_connection(connection)

    class CoworkWakeObserver(root):  # type: ignore[misc]
        on_wake: Callable[[], None]

        def woke_(self, _notification: Any) -> None:
            self.on_wake()

    return Delegates(CoworkMachineDelegate, CoworkListenerDelegate, CoworkWakeObserver)
