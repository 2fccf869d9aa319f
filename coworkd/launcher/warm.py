"""A sandbox that is built ahead: bubblewrap has done its work, the filters are on, and the shim waits for a command.

It is what the session's last command could have had, in a cgroup of its own without limits of its own, and holds nothing of any command.
It is used once.
"""

from __future__ import annotations

from coworkd.launcher.bwrap import Bwrap
from coworkd.model.launch import Spawn
from coworkd.model.limits import CgroupLimits
from coworkd.system import cgroup_limits

_MEMORY_LEAST_BYTES = 32 * 1024 * 1024
"""A command that may have less is started without a shim, which needs some of it itself."""
_PIDS_LEAST = 3
"""What bubblewrap, its init and the command are together: with fewer a sandbox of the command's own could not be built."""


def walls_of(request: Spawn) -> tuple[object, ...]:
    """What the sandbox is, whatever runs in it: a command takes one that waits only where these are the same."""
    return request.uid, request.gid, request.bwrap_args, request.filters, request.shim, request.rlimits


class WarmSandbox:
    """One of a session's."""

    __slots__ = ("bwrap", "walls")

    def __init__(self, bwrap: Bwrap, walls: tuple[object, ...]) -> None:
        """`walls` is `walls_of` what it was built for."""
        self.bwrap = bwrap
        self.walls = walls

    @property
    def ready(self) -> bool:
        """Whether it would take a command at once."""
        bwrap = self.bwrap
        return bwrap.shim_usage is not None and bwrap.monitor_status is None and bwrap.payload_status is None

    def suits(self, request: Spawn) -> bool:
        """Whether `request` would find in it what a sandbox of its own would be."""
        memory, pids = request.limits.memory_max_bytes, request.limits.pids_max
        if (memory is not None and memory < _MEMORY_LEAST_BYTES) or (pids is not None and pids < _PIDS_LEAST):
            return False
        return self.walls == walls_of(request)

    def take(self, limits: CgroupLimits) -> Bwrap:
        """It is a command's from now on, with the command's limits. Raises `OSError`, and it is dismissed then."""
        if self.bwrap.cgroup_path is not None:
            try:
                cgroup_limits.limit(self.bwrap.cgroup_path, limits)
            except OSError:
                self.dismiss()
                raise
        return self.bwrap

    def dismiss(self) -> None:
        """End it; it is reaped, and its cgroup removed, like any other."""
        self.bwrap.kill()
