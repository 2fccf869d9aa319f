"""Tells when the Mac has slept and is awake again, by NSWorkspace's notification.

Without AppKit nothing is told: `host_stub.clock` sees a sleep from its clocks a little later. The observer is the caller's to keep.

Source: Apple, NSWorkspace didWakeNotification (posted in the workspace's own centre, on the main run loop).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from host_stub.vz.delegate import delegates
from host_stub.vz.framework import Framework


def observe_wake(framework: Framework, on_wake: Callable[[], None]) -> Any | None:
    """Call `on_wake` on the main thread after each sleep. Returns what must be kept, or None where AppKit is missing."""
    if framework.appkit is None:
        return None
    observer = delegates(framework).waking.alloc().init()
    observer.on_wake = on_wake
    centre = framework.appkit.NSWorkspace.sharedWorkspace().notificationCenter()
    centre.addObserver_selector_name_object_(observer, b"woke:", framework.appkit.NSWorkspaceDidWakeNotification, None)
    return observer
