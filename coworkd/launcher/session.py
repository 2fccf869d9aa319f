"""What the launcher holds of a session: a mount namespace, a network namespace, listening sockets and a cgroup.

The namespaces are made by a builder child and kept as descriptors, so nothing of them lives in a file system and nothing is left
after a crash. The builder tells its result through a pipe: nothing but `ok` and the missing entries, or a stage and an errno. A builder
that does not answer in `BUILD_TIMEOUT_S` (a hung share) is killed and the session refused.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from coworkd.launcher import tree
from coworkd.launcher.listeners import Listeners
from coworkd.launcher.standby import Standby
from coworkd.launcher.warm import WarmSandbox
from coworkd.model.errors import UNDECODABLE
from coworkd.model.launch import OpenSession
from coworkd.model.limits import PressureKind
from coworkd.system import descriptors, namespaces

BUILD_TIMEOUT_S = 10.0
_REPORT_LIMIT_BYTES = 64 * 1024
_WORDS_LIMIT = 4096
"""Characters of a stage or message that are told: the report fits the pipe whole, so one read takes it."""


class BuildReport(Struct, frozen=True, kw_only=True):
    """The builder's one message."""

    error_stage: str | None = None
    errno: int | None = None
    message: str = ""
    missing: tuple[bytes, ...] = ()
    unmapped: tuple[bytes, ...] = ()


class Session:
    """An open session. `close` lets go of its listeners and of both namespaces, which end with their last process."""

    def __init__(
        self,
        request: OpenSession,
        report: BuildReport,
        *,
        mount_namespace: int,
        network_namespace: int,
        listeners: tuple[int, ...],
    ) -> None:
        self.name = request.session
        self.uid = request.uid
        self.gid = request.gid
        self.mount_namespace = mount_namespace
        self.network_namespace = network_namespace
        self.listeners = listeners
        self.paused = request.paused
        """Its commands are frozen, or about to be: nothing is born in it."""
        self.standby: Standby | None = None
        self.warm: list[WarmSandbox] = []
        """Those that wait for a command or are being built for one, the oldest first."""
        self.pressure: dict[PressureKind, int] = {}
        """Files of its cgroup, once asked for. Kept: the end of a trigger takes the kernel 10 ms, and a coworkd that is killed would end
        with those of all sessions, one after the other, before the next one can begin.
        """
        self.missing = tuple(os.fsdecode(path) for path in report.missing)
        self.degraded = tuple(
            f"{os.fsdecode(path)} keeps its owner: no idmapped mounts there" for path in report.unmapped
        )

    def take_standby(self) -> Standby | None:
        """The waiting child, the caller's from now on."""
        taken, self.standby = self.standby, None
        return taken

    def take_warm(self) -> list[WarmSandbox]:
        """All of them, the caller's from now on."""
        taken, self.warm = self.warm, []
        return taken

    def close(self) -> None:
        standby = self.take_standby()
        if standby is not None:
            standby.dismiss()
        for sandbox in self.take_warm():
            sandbox.dismiss()
        self.close_pressure()
        for fd in (*self.listeners, self.mount_namespace, self.network_namespace):
            os.close(fd)
        self.listeners = ()

    def close_pressure(self) -> None:
        """Keep the files of its pressure no longer. Idempotent."""
        while self.pressure:
            os.close(self.pressure.popitem()[1])


class Builder:
    """A child that builds a session's namespaces; `fileno` becomes readable when it has answered or died.

    It waits, after its answer, until `finish` or `abandon`: the launcher has to open its namespaces while it lives.
    """

    def __init__(self, request: OpenSession, base: bytes, listeners: Listeners) -> None:
        """`listeners` are the builder's from here on, whatever comes of it. Raises `OSError`."""
        self.request = request
        self._listeners = listeners
        try:
            self._fork(base)
        except OSError:
            listeners.close()
            raise

    def _fork(self, base: bytes) -> None:
        self._report, report_write = os.pipe2(os.O_CLOEXEC)
        hold_read, self._hold = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self._report)
            os.close(self._hold)
            raise
        finally:
            if getattr(self, "pid", -1) != 0:
                os.close(report_write)
                os.close(hold_read)
        if self.pid == 0:
            os.close(self._report)
            os.close(self._hold)
            _build(self.request, base, self._listeners.to_place, report_write, hold_read)

    def fileno(self) -> int:
        return self._report

    def finish(self) -> tuple[Session | None, BuildReport]:
        """Take the answer; the session on success. The child ends by itself afterwards and is reaped by the launcher."""
        data = os.read(self._report, _REPORT_LIMIT_BYTES)
        report = _parse_report(data)
        session = None
        try:
            if report.error_stage is None:
                session = self._take(report)
        except OSError as error:
            report = BuildReport(error_stage="namespaces", errno=error.errno, message=str(error))
        finally:
            self._release()
        return session, report

    def _take(self, report: BuildReport) -> Session:
        mount_namespace = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            network_namespace = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(mount_namespace)
            raise
        try:
            self._listeners.open_ports(network_namespace)
        except OSError:
            os.close(mount_namespace)
            os.close(network_namespace)
            raise
        return Session(
            self.request,
            report,
            mount_namespace=mount_namespace,
            network_namespace=network_namespace,
            listeners=self._listeners.take(),
        )

    def abandon(self) -> None:
        """Kill the builder; nothing of its work stays."""
        os.kill(self.pid, signal.SIGKILL)
        self._release()

    def _release(self) -> None:
        self._listeners.close()
        os.close(self._report)
        os.close(self._hold)


def _parse_report(data: bytes) -> BuildReport:
    if not data:
        return BuildReport(error_stage="builder", message="the builder died without an answer")
    try:
        return msgspec.msgpack.decode(data, type=BuildReport)
    except UNDECODABLE as error:
        return BuildReport(error_stage="builder", message=f"the builder's answer cannot be read: {error}")


def _build(
    request: OpenSession, base: bytes, listeners: Sequence[tree.TreeSocket], report_fd: int, hold_fd: int
) -> None:
    """The builder's whole life. It may hang with a share: a pipe of some command's that it held would then have no end."""
    try:
        signal.set_wakeup_fd(-1)  # it is closed below, and the helper that maps an owner ends with a SIGCHLD
        descriptors.close_all_but((0, 1, 2, report_fd, hold_fd, *(each.fd for each in listeners)))
        sources = tree.Sources(request.uid, request.gid)
        sources.take(request.tree)
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
        namespaces.set_loopback_up()
        tree.build(request.tree, sources, base, listeners=listeners)
        report = BuildReport(missing=tuple(sources.missing), unmapped=tuple(sources.unmapped))
    except tree.TreeError as error:
        report = BuildReport(
            error_stage=error.stage[:_WORDS_LIMIT], errno=error.errno, message=str(error)[:_WORDS_LIMIT]
        )
    except OSError as error:
        report = BuildReport(error_stage="namespaces", errno=error.errno, message=str(error)[:_WORDS_LIMIT])
    except BaseException as error:  # noqa: BLE001 - a forked child must never go on as a second launcher
        report = BuildReport(error_stage="builder", message=repr(error)[:_WORDS_LIMIT])
    try:
        os.write(report_fd, msgspec.msgpack.encode(report))
        os.read(hold_fd, 1)
    finally:
        os._exit(0)
