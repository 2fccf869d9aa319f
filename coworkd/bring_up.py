"""What stands before the rest is built: signals, the launcher, and the session disk, on which the audit log and all records lie.

Order: signals; the lock of the runtime directory, so that no two coworkds ask one launcher; in a guest the door, so that hosts can come
while the rest is on its way; the launcher; the session disk, which a
worker of the launcher's mounts; the lock of the state directory on it, so that no two coworkds have one disk. A directory needs no
worker, and comes up before the launcher is there.

An absent disk does not end the start: coworkd then stands on the bare directory below the mount point, and refuses sessions.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import trio

from coworkd import __version__
from coworkd.config import Config
from coworkd.model.errors import CoworkError
from coworkd.services.events import EventRing
from coworkd.services.health import Health
from coworkd.services.launching import Connect, LauncherClient
from coworkd.services.storage import Storage
from coworkd.services.storage_disk import DiskWorker
from coworkd.services.storage_lock import StateLock
from coworkd.system.supervised import listener_pid

Mode = Literal["serve", "local"]
_END_S = 10.0
"""Longer than the launcher takes to end what stands on it."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("coworkd.app")


class Connects(NamedTuple):
    """How the other two programs are reached; each may start what it connects to."""

    launcher: Connect
    egress: Connect


class Ending:
    """When coworkd ends, and why. A signal ends it at any time, also while it comes up."""

    def __init__(self) -> None:
        self.reason = ""
        self.again = False
        """Whether it comes up anew at once: the session disk is back."""
        self.restart = False
        """Whether the image's coworkd comes up in its place, the commands living on: another release is chosen."""
        self.power_off_within_s: float | None = None
        """The machine is to be turned off as well, and the end has so long."""
        self._over_at = math.inf
        self.wanted = trio.Event()
        self._scope = trio.CancelScope()
        self.on_hangup: Callable[[], Awaitable[None]] | None = None

    def end(
        self, reason: str, *, again: bool = False, restart: bool = False, power_off_within_s: float | None = None
    ) -> None:
        """The first reason counts; a machine that is to be turned off is, whatever was wanted before, and by the soonest time asked for."""
        if not self.wanted.is_set():
            self.reason, self.again, self.restart = reason, again, restart
        if power_off_within_s is not None:
            self.again = self.restart = False
            if power_off_within_s < self.left_s:
                self.power_off_within_s = power_off_within_s
                self._over_at = trio.current_time() + power_off_within_s
        self.wanted.set()
        self._scope.cancel()

    @property
    def left_s(self) -> float:
        """What is left of the budget of the end; infinite where there is none."""
        return self._over_at - trio.current_time()

    @contextmanager
    def coming_up(self) -> Iterator[trio.CancelScope]:
        """What is inside is given up when the end is wanted; one part of coming up after the other."""
        with trio.CancelScope() as self._scope:
            if self.wanted.is_set():
                self._scope.cancel()
            yield self._scope

    async def take_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                if number != signal.SIGHUP:
                    self.end(f"signal {signal.Signals(number).name}")
                elif self.on_hangup is not None:
                    await self.on_hangup()


class Ground:
    """The parts that are there first. Whoever made it calls `close`."""

    def __init__(self, config: Config, *, connect: Connect) -> None:
        self._config = config
        self._runtime_lock: StateLock | None = None
        self._state_lock: StateLock | None = None
        self.boot_id = _BOOT_ID.read_text().strip()
        self.ending = Ending()
        self.events = EventRing()
        self._token: trio.lowlevel.TrioToken | None = None
        self.health = Health(
            boot_id=self.boot_id,
            state_dir=config.state_dir,
            on_change=self._tell_health,
        )
        self.launcher = LauncherClient(
            connect, version=__version__, on_state=lambda reason: self.health.degrade("launcher", reason)
        )
        self.storage = Storage(
            config.storage,
            sessions_dir=config.sessions_dir,
            state_dir=config.state_dir,
            worker=DiskWorker(self.launcher.folders),
            events=self.events,
            on_state=lambda reason: self.health.degrade("storage", reason),
        )

    def _tell_health(self, degraded: dict[str, str]) -> None:
        """Parts tell it from their worker threads too; links are woken in the loop's own."""
        if self._token is None or trio.lowlevel.in_trio_run():
            self.events.publish("health", {"degraded": degraded})
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.events.publish, "health", {"degraded": degraded})

    async def come_up(self, nursery: trio.Nursery, listen: Callable[[], Awaitable[None]] | None = None) -> None:
        """Raises what keeps it from coming up, a second coworkd among it. `nursery` owns the tasks. `listen` opens the door, as soon as
        nobody else can be behind it.
        """
        config = self._config
        self._token = trio.lowlevel.current_trio_token()
        await nursery.start(self.ending.take_signals)
        if config.storage.kind == "directory":
            if listen is not None:
                await listen()
            await self._bring_up_storage()
        else:
            directory = os.path.dirname(config.launcher_socket)
            self._runtime_lock = StateLock(directory, what=f"the launcher at {config.launcher_socket}")
            if listen is not None:
                await listen()
        with self.health.stage("launcher"):
            await nursery.start(self.launcher.serve)
        if config.storage.kind != "directory":
            await self._bring_up_storage()

    async def _bring_up_storage(self) -> None:
        with self.health.stage("storage"):
            await self.storage.bring_up()
            state_dir = self._config.state_dir
            self._state_lock = StateLock(state_dir, what=f"the state directory {state_dir}")

    @property
    def ends_all(self) -> bool:
        """Whether the launcher and its commands end as well: what stands on a disk that was away cannot go on on the one that is back."""
        return self.ending.power_off_within_s is not None or (self.ending.again and self.storage.state == "degraded")

    async def quit(self) -> None:
        """End the launcher and all that stands on it, the mount of the session disk last: nothing of ours may be open there. One that is
        away is not waited for (`end_unserved`).
        """
        if self._runtime_lock is not None:
            self._close(self._state_lock)
        if self.launcher.pid is None:
            return
        try:
            await self.launcher.quit()
        except CoworkError as error:
            _log.error("the launcher could not be ended: %s", error.message)

    async def end_unserved(self, *sockets: str) -> None:
        """End the programs of ours that still listen there: started while the end was wanted already, or kept by a coworkd before us, so
        that nobody has come to them. For once nothing is started any more; not without the lock that says that they are nobody else's.
        """
        if self._runtime_lock is not None or self._state_lock is not None:
            for path in sockets:
                await _end_listener(path)

    def close(self) -> None:
        """Let go of the locks. Idempotent."""
        self._close(self._state_lock)
        self._close(self._runtime_lock)

    def _close(self, lock: StateLock | None) -> None:
        if lock is not None:
            lock.close()


async def _end_listener(path: str) -> None:
    with suppress(OSError):  # nobody listens, or it has just gone
        pidfd = os.pidfd_open(listener_pid(path))
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            with trio.move_on_after(_END_S):
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
