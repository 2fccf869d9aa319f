"""A child that has taken its session's station and waits for its order: the fork is paid before the command is asked for.

Every sandbox starts from one, so there is one way in: a session that has none yet gets one made on the spot. It is its session's
uid, in its session's namespaces and in a cgroup of its own, without a capability, and knows nothing of any command. Commands still
have a fresh process each; a standby is used once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence

from coworkd.launcher import child
from coworkd.launcher.forker import Forker
from coworkd.launcher.order import ORDER_LIMIT_BYTES, Order, encode_order
from coworkd.system import cgroup
from coworkd.system.memfd import make_sealed

_GONE_S = 0.1


class Standby:
    """One waiting child. Owns its socket, error pipe and cgroup until `send` or `dismiss`."""

    def __init__(
        self,
        forker: Forker,
        *,
        uid: int,
        gid: int,
        mount_namespace: int,
        network_namespace: int,
        launcher_pid: int,
        cgroup_path: str | None,
        ahead: bool,
    ) -> None:
        """Fork it, `ahead` of its order or for one that waits already.

        Raises `OSError` where a process, descriptor or cgroup cannot be had; nothing stays then.
        """
        self.cgroup_path = cgroup_path
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.error_fd, error_write = os.pipe2(os.O_CLOEXEC)
        station = child.Station(
            launcher_pid=launcher_pid,
            uid=uid,
            gid=gid,
            mount_namespace=mount_namespace,
            network_namespace=network_namespace,
            order_fd=theirs.fileno(),
            error_fd=error_write,
            ahead=ahead,
        )
        try:
            self.pid = _fork(forker, station, cgroup_path)
        except OSError:
            self._link.close()
            os.close(self.error_fd)
            if cgroup_path is not None:
                cgroup.kill(cgroup_path)  # a forker that died in the middle of it may have left someone there
                cgroup.remove(cgroup_path, wait_s=_GONE_S)
            raise
        finally:
            theirs.close()
            os.close(error_write)
        os.set_blocking(self.error_fd, False)

    def send(self, order: Order, fds: Sequence[int]) -> None:
        """Give the order; `fds` stay the caller's. Raises `OSError` where the child is gone."""
        message = encode_order(order)
        carried, memfd = list(fds), -1
        if len(message) > ORDER_LIMIT_BYTES:
            memfd = make_sealed("order", message)
            carried.append(memfd)
            message = b"\0"
        try:
            socket.send_fds(self._link, [message], carried)
        finally:
            self._link.close()
            if memfd >= 0:
                os.close(memfd)

    def dismiss(self) -> None:
        """End it and wait until it is gone; with its cgroup."""
        self._link.close()
        os.close(self.error_fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        if self.cgroup_path is not None:
            cgroup.remove(self.cgroup_path)


def _fork(forker: Forker, station: child.Station, cgroup_path: str | None) -> int:
    if cgroup_path is None:
        return forker.fork(station, None)
    cgroup.create(cgroup_path)
    cgroup.kill_as_one(cgroup_path)
    directory = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return forker.fork(station, directory)
    finally:
        os.close(directory)
