"""One coworkd: brings every service up, owns the nursery tree, and says when it is ready and when it ends.

Order of coming up, each a timed stage: in a guest listen first (`early`, `door`) → launcher and storage (`bring_up`) → audit → policies →
trust → egress → share → sessions → processes → bridges; `local` listens last. What fails there ends the start with its reason; nothing runs
without an audit log or a policy. What only limits (a missing cgroup controller, a coworkd-egress that does not answer, a session disk
that is absent) is `degraded`.

The end: TERM or INT (or `shutdown`) stops accepting and tells every link. In `serve` commands live on, held by the launcher; in `local`
they are ended, throw-away sessions are deleted, and the launcher quits. A session disk that is back ends it too, and it comes up anew.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from coworkd import __version__
from coworkd.bring_up import Ground, Mode
from coworkd.composition import Composition
from coworkd.config import Config
from coworkd.early import Early
from coworkd.model import calls
from coworkd.model.errors import CoworkError
from coworkd.model.ports import AuditPort
from coworkd.rpc.handlers.admin import admin_methods
from coworkd.rpc.handlers.approvals import approval_methods
from coworkd.rpc.handlers.audit import audit_methods
from coworkd.rpc.handlers.egress import egress_methods
from coworkd.rpc.handlers.files import file_methods
from coworkd.rpc.handlers.folders import folder_methods
from coworkd.rpc.handlers.policy import policy_methods
from coworkd.rpc.handlers.process import process_methods
from coworkd.rpc.handlers.process_limits import process_limits_methods
from coworkd.rpc.handlers.session import session_methods
from coworkd.rpc.handlers.session_disk import session_disk_methods
from coworkd.rpc.handlers.storage import storage_methods
from coworkd.rpc.handlers.streams import bridge_methods, stream_methods
from coworkd.rpc.handlers.tools import tool_methods
from coworkd.rpc.handlers.trust import trust_methods
from coworkd.rpc.handlers.update import update_methods
from coworkd.rpc.methods import MethodTable
from coworkd.services.health import Sources
from coworkd.services.launching import Connect
from coworkd.services.logs import LogService
from coworkd.services.process_carrying import Carried
from coworkd.services.updates import Updates

_LINKS_GRACE_S = 2.0
_GRACE_SHARE = 0.4
"""Of the budget of a shutdown: what commands have between TERM and KILL."""
_log = logging.getLogger("coworkd.app")


class App:
    """One coworkd. `run` serves until a signal or `shutdown`."""

    def __init__(
        self,
        config: Config,
        *,
        mode: Mode,
        connect: Connect,
        logs: LogService,
        ground: Ground,
        early: Early,
        updates: Updates,
    ) -> None:
        """`connect` reaches coworkd-egress; `ground` is up, and stays its maker's to close, as does `early`."""
        self._config = config
        self._mode = mode
        self._logs = logs
        self._ending = ground.ending
        self._health = ground.health
        self._parts = Composition(config, mode=mode, connect=connect, ground=ground)
        ground.launcher.on_lost = self._record_lost_launcher
        self._ending.on_hangup = self._reload
        self._early = early
        self._updates = updates
        self._door = early.door
        self._ground = ground
        self.carried: tuple[Carried, ...] = ()
        """What of ended commands goes to the coworkd that comes up anew in this process."""
        self._health.attach(self._sources())
        self._parts.processes.callers.attach(partial(self._door.server.dispatcher.asked_again, "process.run"))

    async def run(self, ready: Callable[[], None]) -> None:
        """Come up, call `ready`, serve, and end in order. Raises what keeps it from coming up."""
        try:
            async with trio.open_nursery() as nursery:
                with self._ending.coming_up() as coming_up:
                    await self._come_up(nursery)
                if not coming_up.cancelled_caught:
                    # What is here now stays: the collector need not look at it again and again, nor now, when hosts wait.
                    gc.freeze()
                    self._tell_ready()
                    ready()
                    await nursery.start(self._updates.serve)
                    await self._ending.wanted.wait()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + self._ending.left_s):
                    await self._go_down()
                if self._ending.again:
                    self.carried = self._parts.processes.carry()
                nursery.cancel_scope.cancel()
        finally:
            self._parts.close()

    @property
    def audit(self) -> AuditPort:
        return self._parts.audit

    @property
    def egress_pid(self) -> int | None:
        """None while coworkd-egress is away."""
        return self._parts.egress.pid

    async def _come_up(self, nursery: trio.Nursery) -> None:
        await nursery.start(self._parts.storage.serve)
        with self._health.stage("policies"):
            await self._parts.policies.load()
        with self._health.stage("trust"):
            await self._parts.trust.load()
        self._health.degrade("tools", await self._parts.tools.load())
        await nursery.start(self._parts.network.serve)
        with self._health.stage("egress"):
            await nursery.start(self._parts.egress.serve)
        with self._health.stage("share"):
            await nursery.start(self._parts.share.serve)
        with self._health.stage("sessions"):
            await nursery.start(self._parts.measuring.serve)
            await nursery.start(self._parts.stages.serve)
            await nursery.start(self._parts.guarding.serve)
            await nursery.start(self._parts.folders.serve)
            await self._parts.sessions.load()
        with self._health.stage("processes"):
            await nursery.start(self._parts.processes.serve)
            before = self._parts.launcher.taken_over
            had = before is not None and before.supervisors_before > 0
            launcher = self._parts.launcher.pid if had else None
            await self._parts.processes.take_lost(self._parts.audit, launcher=launcher)
            # After the processes: a deletion that goes on has to know the commands the launcher kept.
            await nursery.start(self._parts.sessions.serve)
            await nursery.start(self._parts.pressure.serve)
            await nursery.start(self._parts.session_disk.serve)
            not_reopened = await self._parts.sessions.reopen()
            await self._parts.egress.stop_others()
        with self._health.stage("bridges"):
            await nursery.start(self._parts.streams.serve)
            await nursery.start(self._parts.files.serve)
            await nursery.start(self._parts.bridges.serve, self._config.bridges)
        await self._door.enter(self._methods(), self._parts.audit)
        if not self._door.is_open:
            with self._health.stage("listen"):
                await self._door.open(nursery, patient=False)
        await self._parts.audit.record(
            "daemon.start",
            {
                "version": __version__,
                "pid": os.getpid(),
                "launcher_pid": self._parts.launcher.pid,
                "egress_pid": self._parts.egress.pid,
                "mode": self._mode,
                "profiles": self._parts.policies.profiles,
                "endpoints": self._config.endpoints,
                "degraded": [f"{part}: {reason}" for part, reason in self._health.degraded.items()],
            },
        )

        await self._tell_restarted(not_reopened)

    def _record_lost_launcher(self, pid: int | None) -> None:
        """Before anything that begins with the next one: by that the coworkd after us knows what ran with which (`process_lost`)."""
        try:
            self._parts.audit.record_nowait("launcher.lost", {"pid": pid})
        except CoworkError as error:
            _log.error("that launcher %s was lost is not in the audit log: %s", pid, error.message)

    async def _tell_restarted(self, not_reopened: tuple[str, ...]) -> None:
        recovery = self._parts.recovery
        await recovery.tell(
            self._parts.launcher.taken_over,
            self._parts.processes.adoption,
            not_reopened=not_reopened,
            approvals=self._parts.approvals.waiting,
            took_s=time.monotonic() - self._health.made_at,
        )
        self._health.restarted = recovery.restarted

    def _tell_ready(self) -> None:
        self._health.all_here()
        _log.info("ready%s", "".join(f"; degraded: {part}: {why}" for part, why in self._health.degraded.items()))
        self._ground.events.publish("ready", {"degraded": dict(self._health.degraded)})

    async def _go_down(self) -> None:
        _log.info("stopping: %s", self._ending.reason)
        running = sum(count for state, count in self._parts.processes.state_counts().items() if state != "exited")
        await self._door.shut(_LINKS_GRACE_S)
        await self._parts.bridges.end_all()
        # Each, whatever became of the one before: what is not ended here stays.
        for end in self._ends():
            try:
                await end()
            except CoworkError as error:
                _log.error("not everything could be ended: %s", error.message)
        try:
            await self._parts.audit.record("daemon.stop", {"reason": self._ending.reason, "processes": running})
        except CoworkError as error:
            _log.error("the end of this coworkd is not recorded: %s", error.message)

    def _ends(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        if self._mode == "local":
            return (self._parts.processes.end_all, self._parts.sessions.end_ephemeral, self._parts.egress.quit)
        if self._ending.power_off_within_s is not None:
            return (partial(self._parts.processes.terminate_all, self._ending.power_off_within_s * _GRACE_SHARE),)
        return (self._parts.processes.end_all,) if self._ending.again else ()

    async def _reload(self) -> None:
        try:
            answer = await self._parts.policies.reload()
        except CoworkError as error:
            _log.error("policies were not reloaded, the old ones hold: %s", error.message)
        else:
            _log.info("policies reloaded; changed: %s", ", ".join(answer.changed) or "nothing")

    def _methods(self) -> MethodTable:
        return MethodTable(
            (
                *self._early.methods,
                *admin_methods(self._health),
                *session_methods(self._parts.sessions),
                *session_disk_methods(
                    self._parts.session_disk.meter, self._parts.session_disk.pruning, self._parts.session_disk.retention
                ),
                *folder_methods(self._parts.folders, self._parts.stages),
                *approval_methods(self._parts.approvals),
                *egress_methods(self._parts.egress),
                *trust_methods(self._parts.trust),
                *tool_methods(self._parts.tools),
                *file_methods(self._parts.files),
                *stream_methods(self._parts.streams, self._parts.forwards),
                *bridge_methods(self._parts.bridges),
                *process_methods(self._parts.processes),
                *process_limits_methods(self._parts.process_limits),
                *audit_methods(self._parts.audit),
                *storage_methods(self._parts.storage),
                *update_methods(self._updates),
                *policy_methods(self._parts.policies),
            )
        )

    def _sources(self) -> Sources:
        processes = self._parts.processes
        return Sources(
            endpoints=lambda: self._config.endpoints,
            profiles=lambda: self._parts.policies.profiles,
            bubblewrap=lambda: self._parts.features.version,
            launcher_pid=lambda: self._parts.launcher.pid,
            links=lambda: self._door.server.links,
            sessions=lambda: self._parts.sessions.count,
            processes=processes.state_counts,
            started_total=lambda: processes.started_total,
            start_errors_total=lambda: processes.start_errors_total,
            spool_bytes=lambda: processes.spool_bytes,
            audit_records=lambda: self._parts.audit.records,
            audit_syncs=self._audit_syncs,
            egress_pid=lambda: self._parts.egress.pid,
            egress=self._parts.egress.totals,
            output_bytes=lambda: processes.output_bytes,
            spool_memory=lambda: processes.spool_memory,
            streams=lambda: self._parts.streams.count,
            requests_total=lambda: self._door.server.dispatcher.requests_total,
            work_total=lambda: self._door.server.dispatcher.work_total,
            events=lambda: (self._ground.events.next - 1, self._ground.events.missed_total),
            warm=self._parts.launcher.groups.count_warm,
            pressure=self._parts.pressure.averages,
            doctor=self._examine,
            report=self._report,
        )

    def _audit_syncs(self) -> tuple[int, float, float]:
        times = self._parts.audit.sync_times
        return times.times, times.took_s, times.most_s

    def _report(self, params: calls.Report) -> calls.Reported:
        # Imported only when asked for, as `_examine`'s.
        from coworkd.services.report import report

        pids = {"coworkd": os.getpid(), "launcher": self._parts.launcher.pid, "egress": self._parts.egress.pid}
        return report(self._config, params, {name: pid for name, pid in pids.items() if pid is not None})

    def _examine(self) -> tuple[calls.Finding, ...]:
        # Imported only when asked for: it brings subprocess and more into a process that stays small otherwise.
        from coworkd.services.doctor import AuditFacts, examine
        from coworkd.services.doctor_network_probes import NetworkSources
        from coworkd.services.doctor_probes import SystemProbes
        from coworkd.services.doctor_storage import StorageFacts

        seq, head = self._parts.audit.head
        sockets = [Path(path) for path in self._config.unix_sockets]
        probes = SystemProbes(
            state_dir=Path(self._config.state_dir),
            audit_dir=Path(self._config.state_dir) / "audit",
            launcher_socket=None,
            sockets=sockets,
            launcher=lambda: f"pid {self._parts.launcher.pid} answers",
            # What was torn is cut off and recorded at the opening; what is wrong since then the log has told us.
            audit=lambda: AuditFacts(seq=seq, head=head, torn_bytes=0, broken=self._health.degraded.get("audit")),
            network=NetworkSources(
                egress_pid=lambda: self._parts.egress.pid,
                egress_degraded=lambda: self._parts.egress.degraded,
                presets=self._parts.policies.presets,
                upstream=self._parts.upstream,
                host_uri=self._config.egress.host,
                default_routes=self._parts.network.default_routes,
                reachability=lambda: self._parts.network.reachability,
            ),
            storage=lambda: StorageFacts(
                kind=self._parts.storage.kind,
                state=self._parts.storage.state,
                reason=self._parts.storage.reason,
                mark=self._parts.storage.mark,
                project_quota=self._parts.storage.project_quota,
                reserve_missing=self._parts.storage.reserve.missing,
            ),
            bwrap=self._parts.features.path,
        )
        return (*examine(probes), *self._parts.recovery.findings())
