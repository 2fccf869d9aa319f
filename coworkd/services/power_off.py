"""The last step of a shutdown: what was written reaches the disks, as far as time allows, and the machine is off.

By reboot(2) and not by way of systemd: everything that matters has ended in order by then, the root is not kept, and a unit or a share that
hangs has no say in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

import trio

from coworkd.system.power import turn_off

LEAST_SYNC_S = 1.0
_log = logging.getLogger("coworkd.power")


def enforce(
    within_s: float, *, sync: Callable[[], None] = os.sync, off: Callable[[], None] = turn_off
) -> threading.Timer:  # fmt: skip
    """Turn off after `within_s`, whatever else hangs: from threads of its own, with a sync in the last `LEAST_SYNC_S` of it. Returns what
    can be cancelled.
    """

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # no thread is to be had any more
            syncing = threading.Thread(target=sync, daemon=True)
            syncing.start()
            syncing.join(LEAST_SYNC_S)
        off()

    timer = threading.Timer(max(0.0, within_s - LEAST_SYNC_S), end)
    timer.daemon = True
    timer.start()
    return timer


async def power_off(within_s: float, *, sync: Callable[[], None] = os.sync, off: Callable[[], None] = turn_off) -> None:
    """Sync for at most `within_s`, but `LEAST_SYNC_S` in any case, then turn off. A sync that hangs is left behind in its thread.

    Returns only where the kernel refuses; that is logged.
    """
    with trio.move_on_after(max(within_s, LEAST_SYNC_S)) as waiting:
        await trio.to_thread.run_sync(sync, abandon_on_cancel=True)
    if waiting.cancelled_caught:
        _log.error("not everything was written in time: a disk or a share does not answer")
    _log.info("powering off")
    try:
        off()
    except OSError as error:
        _log.error("the machine cannot be turned off: %s; has coworkd CAP_SYS_BOOT?", error.strerror)
