"""Whether memory is too short for anything to wait in it: the guest's as a whole, and a session's against its limit. And whether a
session has processes to spare: what waits is three or four of them.

Nobody looks on a timer. The kernel tells: of the guest by a trigger in /proc/pressure/memory (PSI), of a session by its memory.events,
which count whenever it comes up against its memory.high or memory.max. Before something is built the numbers are looked at.

Where the kernel has no PSI, or no memory controller, the look is all there is. Sources: Documentation/accounting/psi.rst,
Documentation/admin-guide/cgroup-v2.rst, proc_meminfo(5).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial

from coworkd.launcher.readers import Readers
from coworkd.system import cgroup

_PSI = "/proc/pressure/memory"
_MEMINFO = "/proc/meminfo"
_TRIGGER = b"some 100000 1000000\0"
"""Someone waited for memory a tenth of the last second."""
_SHORT_S = 10.0
"""So long memory is taken to be short after the kernel has told so."""
_AVAILABLE_LEAST_SHARE = 10
_GROUP_MOST_SHARE = 4
_PIDS_LEAST = 32
"""A session that may have fewer processes needs them all itself."""
_READ_BYTES = 4096


class Pressure:
    """Owns the files it watches. `on_short` is called when the kernel tells that memory is short: in a session, or (None) in the guest."""

    def __init__(self, readers: Readers, *, psi: str = _PSI, meminfo: str = _MEMINFO) -> None:
        self.on_short: Callable[[str | None], None] = _nobody_asks
        self._readers = readers
        self._meminfo = meminfo
        self._short_until: dict[str | None, float] = {}
        self._groups: dict[str, int] = {}
        with contextlib.suppress(OSError):
            fd = os.open(psi, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, _TRIGGER)
                readers.register_urgent(fd, partial(self._told, None))
            except OSError:
                os.close(fd)

    def is_short(self, session: str, session_group: str | None) -> bool:
        """Whether nothing is to be built now, in the session with that cgroup."""
        now = time.monotonic()
        self._short_until = {name: until for name, until in self._short_until.items() if now < until}
        if None in self._short_until or session in self._short_until or self._guest_is_short():
            return True
        if session_group is None:
            return False
        return _is_near_limit(session_group, "memory") or _is_near_limit(session_group, "pids", least=_PIDS_LEAST)

    def watch(self, session: str, session_group: str | None) -> None:
        """Have the kernel tell of a session that comes up against its limit."""
        if session_group is None or session in self._groups:
            return
        with contextlib.suppress(OSError):
            fd = os.open(f"{session_group}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            os.read(fd, _READ_BYTES)  # from here on it has news
            self._readers.register_urgent(fd, partial(self._told, session))
            self._groups[session] = fd

    def unwatch(self, session: str) -> None:
        """Nothing waits in it any more."""
        fd = self._groups.pop(session, None)
        if fd is not None:
            self._readers.drop(fd)

    def _told(self, session: str | None) -> None:
        self._short_until[session] = time.monotonic() + _SHORT_S
        if session is not None:
            self.unwatch(session)
        self.on_short(session)

    def _guest_is_short(self) -> bool:
        """Also where it cannot be asked: who has no descriptor for that has none to build with."""
        sizes: dict[str, int] = {}
        try:
            with open(self._meminfo) as file:
                for line in file:
                    name, _, rest = line.partition(":")
                    if name in ("MemTotal", "MemAvailable"):
                        sizes[name] = int(rest.split()[0])
                    if len(sizes) == 2:
                        break
        except OSError:
            return True
        return sizes.get("MemAvailable", 0) < sizes.get("MemTotal", 0) // _AVAILABLE_LEAST_SHARE


def _is_near_limit(group: str, controller: str, *, least: int = 0) -> bool:
    """Whether three quarters are used, or the limit is below `least`."""
    limit, used = cgroup.number(group, f"{controller}.max"), cgroup.number(group, f"{controller}.current")
    return limit is not None and used is not None and (limit < least or used > limit - limit // _GROUP_MOST_SHARE)


def _nobody_asks(session: str | None) -> None:
    """Nothing waits yet."""
