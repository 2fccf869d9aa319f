"""The composition root: builds every service, owns the nursery tree, and says when coworkd is ready and when it ends.

Order of coming up, each a timed stage: launcher and storage (`bring_up`) → audit → policies → trust → egress → sessions → processes →
listen. What fails there ends the start with its reason; nothing runs without an audit log or a policy. What only limits (a missing
cgroup controller, a coworkd-egress that does not answer, a session disk that is absent) is `degraded`.

The end: TERM or INT (or `shutdown`) stops accepting and tells every link. In `serve` commands live on, held by the launcher; in `local`
they are ended, throw-away sessions are deleted, and the launcher quits. A session disk that is back ends it too, and it comes up anew.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path

import trio

from coworkd import __version__
from coworkd.auditlog.rotation import RotationLimits
from coworkd.bring_up import Connects, Ground, Mode
from coworkd.config import Config
from coworkd.model import calls
from coworkd.model.errors import CoworkError
from coworkd.model.process import StreamName
from coworkd.rpc.handlers.admin import admin_methods
from coworkd.rpc.handlers.approvals import approval_methods
from coworkd.rpc.handlers.audit import audit_methods
from coworkd.rpc.handlers.egress import egress_methods
from coworkd.rpc.handlers.events import event_methods
from coworkd.rpc.handlers.files import file_methods
from coworkd.rpc.handlers.folders import folder_methods
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.handlers.policy import policy_methods
from coworkd.rpc.handlers.process import process_methods
from coworkd.rpc.handlers.session import session_methods
from coworkd.rpc.handlers.session_disk import session_disk_methods
from coworkd.rpc.handlers.storage import storage_methods
from coworkd.rpc.handlers.streams import bridge_methods, stream_methods
from coworkd.rpc.handlers.trust import trust_methods
from coworkd.rpc.methods import MethodTable
from coworkd.rpc.server import Server
from coworkd.rpc.stream_data import encode_stream_data
from coworkd.sandbox.compose import composer
from coworkd.services.activity import Activity
from coworkd.services.approvals import Approvals
from coworkd.services.audit import AuditLog
from coworkd.services.bridges import Bridges
from coworkd.services.bridges_ends import Ends
from coworkd.services.egress import Egress
from coworkd.services.files import Files
from coworkd.services.folders import Folders
from coworkd.services.folders_journals import Journals
from coworkd.services.folders_judging import FolderRules
from coworkd.services.forwards import Forwards
from coworkd.services.guarding import Guarding
from coworkd.services.guarding_callers import Callers
from coworkd.services.guarding_trees import Trees
from coworkd.services.health import Sources
from coworkd.services.launching import Connect
from coworkd.services.logs import LogService
from coworkd.services.network import Network
from coworkd.services.policies import PolicyStore
from coworkd.services.processes import Processes, ProcessLimits, fit_descriptors
from coworkd.services.session_disk import SessionDisk
from coworkd.services.session_home import Homes
from coworkd.services.session_measuring import Measuring
from coworkd.services.session_records import RecordStore
from coworkd.services.sessions import Sessions
from coworkd.services.stages import Stages
from coworkd.services.storage_quota import ProjectQuota
from coworkd.services.streams import Streams
from coworkd.services.trust import Trust
from coworkd.system.guest import read_bwrap_features, read_layout
from coworkd.wire.connection import compose_notification
from coworkd.wire.endpoint import parse_served_endpoint
from coworkd.wire.stream import StreamEvents, output_events

_LINKS_GRACE_S = 2.0
FALLBACK_AUDIT_BYTES = 8 * 1024 * 1024
"""The bound of the audit log in the bare directory below a mount point whose disk is absent."""
_log = logging.getLogger("coworkd.app")


async def serve(config: Config, *, mode: Mode, connects: Connects, logs: LogService, ready: Callable[[], None]) -> None:
    """One coworkd from coming up to its end, and again where its disk is back. Raises what keeps it from coming up."""
    while await _serve_once(config, mode=mode, connects=connects, logs=logs, ready=ready):
        ready = _ready_before


async def _serve_once(
    config: Config, *, mode: Mode, connects: Connects, logs: LogService, ready: Callable[[], None]
) -> bool:
    """Whether it is to come up again."""
    ground = Ground(config, connect=connects.launcher)
    ending = ground.ending
    try:
        async with trio.open_nursery() as nursery:
            with ending.coming_up():
                await ground.come_up(nursery)
            if not ending.wanted.is_set():
                await App(config, mode=mode, connect=connects.egress, logs=logs, ground=ground).run(ready)
            # What stands on a disk that was away cannot go on on the one that is back.
            if mode == "local" or (ending.again and ground.storage.state == "degraded"):
                with trio.CancelScope(shield=True):
                    await ground.quit()
            nursery.cancel_scope.cancel()
    finally:
        ground.close()
    return ending.again


def _ready_before() -> None:
    """Whoever started us was told once."""


class App:
    """One coworkd. `run` serves until a signal or `shutdown`."""

    def __init__(self, config: Config, *, mode: Mode, connect: Connect, logs: LogService, ground: Ground) -> None:
        """`connect` reaches coworkd-egress; `ground` is up, and stays its maker's to close."""
        self._config = config
        self._mode = mode
        self._logs = logs
        self._ending = ground.ending
        self.health = ground.health
        self.events = ground.events
        self.launcher = ground.launcher
        self.storage = ground.storage
        with self.health.stage("audit"):
            self.audit = self._open_audit(ground.boot_id)
        self.layout = read_layout()
        self.features = read_bwrap_features()
        self.policies = PolicyStore(
            directories=config.policy_dirs,
            presets_file=lambda: config.presets_file,
            cache_dir=config.cache_dir,
            audit=self.audit,
            events=self.events,
        )
        self.trust = Trust(config.state_dir, self.audit, on_change=lambda: self.egress.trust_changed())
        self.egress = self._make_egress(connect)
        self.network = Network(
            events=self.events,
            upstream=self._upstream,
            host_uri=config.egress.host,
            probe=config.network.probe,
            on_state=lambda reason: self.health.degrade("network", reason),
        )
        self.stages = Stages(config.state_dir, launcher=self.launcher.folders, audit=self.audit, events=self.events)
        self.approvals = Approvals(audit=self.audit, events=self.events, timeout_s=config.approvals.timeout_s)
        self.guarding = self._make_guarding()
        self.folders = self._make_folders()
        self.measuring = Measuring(self.launcher.folders)
        self.quota = ProjectQuota(config.sessions_dir, is_counted=lambda: self.storage.project_quota)
        self.sessions = self._make_sessions()
        self.session_disk = self._make_session_disk()
        self.folders.attach(self.sessions)
        self.stages.attach(self.folders, self.sessions)
        self.processes = self._make_processes()
        self.guarding.attach(self.processes, self.folders.failed)
        self.streams = Streams(encode=encode_stream_data)
        self.files = Files(
            sessions=self.sessions, launcher=self.launcher.folders, audit=self.audit, streams=self.streams
        )
        self.forwards = Forwards(sessions=self.sessions, launcher=self.launcher, audit=self.audit, streams=self.streams)
        self.bridges = self._make_bridges()
        self.sessions.attach(self.processes, on_turn=self._session_turned)
        self.egress.attach(self.sessions)
        self.policies.attach(self.sessions.refresh)
        self.storage.attach(self.audit, on_back=lambda reason: self._ending.end(reason, again=True))
        self._ending.on_hangup = self._reload
        self.server = Server(self._methods(), self.audit)
        self.health.attach(self._sources())

    def _open_audit(self, boot_id: str) -> AuditLog:
        """Without its disk the log stands in the bare directory, and stays small there."""
        limits, absent = self._config.audit, self.storage.state == "absent"
        bound = FALLBACK_AUDIT_BYTES if absent else limits.keep_bytes
        return AuditLog.open(
            Path(self._config.state_dir) / "audit",
            boot_id=boot_id,
            version=__version__,
            limits=RotationLimits(
                file_bytes=min(limits.rotate_bytes, bound // 4) if absent else limits.rotate_bytes,
                total_bytes=min(limits.keep_bytes, bound),
                reserve_bytes=limits.reserve_bytes,
            ),
            on_degraded=lambda reason: self.health.degrade("audit", reason),
            more_room=self.storage.reserve.release,
        )

    def _make_egress(self, connect: Connect) -> Egress:
        return Egress(
            connect,
            version=__version__,
            host_uri=self._config.egress.host,
            filter_program=lambda: self.policies.egress_filter,
            policies=self.policies,
            trust=self.trust,
            audit=self.audit,
            events=self.events,
            on_state=lambda reason: self.health.degrade("egress", reason),
        )

    def _make_guarding(self) -> Guarding:
        callers = Callers()
        activity = Activity(audit=self.audit, events=self.events)
        trees = Trees(
            launcher=self.launcher.folders,
            activity=activity,
            callers=callers,
            on_state=lambda reason: self.health.degrade("activity", reason),
        )
        return Guarding(approvals=self.approvals, activity=activity, trees=trees, callers=callers, events=self.events)

    def _make_folders(self) -> Folders:
        config = self._config
        return Folders(
            launcher=self.launcher.folders,
            stages=self.stages,
            guard=self.guarding,
            rules=FolderRules(share_root=config.share_root, own_directories=(config.state_dir, config.sessions_dir)),
            journals=Journals(config.state_dir),
            audit=self.audit,
            events=self.events,
        )

    def _make_sessions(self) -> Sessions:
        return Sessions(
            records=RecordStore(self._config.state_dir, reserve=self.storage.reserve),
            homes=Homes(
                self._config.sessions_dir,
                with_accounts=self._mode == "serve",
                skeleton=self._config.skeleton,
                stages_dir=os.path.join(self._config.state_dir, "stages"),
                quota=self.quota,
                on_accounts=lambda reason: self.health.degrade("accounts", reason),
            ),
            layout=self.layout,
            launcher=self.launcher,
            reowner=self.measuring,
            folders=self.folders,
            policies=self.policies,
            egress=self.egress,
            trust=self.trust,
            audit=self.audit,
            events=self.events,
            storage=self.storage,
        )

    def _make_session_disk(self) -> SessionDisk:
        return SessionDisk(
            self.sessions,
            retention=self._config.retention,
            measuring=self.measuring,
            policies=self.policies,
            quota=self.quota,
            stages=self.stages,
            storage=self.storage,
            audit=self.audit,
            events=self.events,
        )

    def _make_bridges(self) -> Bridges:
        config = self._config
        own = [config.launcher_socket, config.egress_socket]
        own += [uri.removeprefix("unix://") for uri in config.endpoints if uri.startswith("unix://")]
        return Bridges(
            ends=Ends(sessions=self.sessions, launcher=self.launcher, own_sockets=tuple(own)),
            audit=self.audit,
            on_degraded=self.health.degrade,
            allow_bridges=config.allow_bridges,
        )

    def _session_turned(self, session: str, *, is_open: bool) -> None:
        self.bridges.look()
        if not is_open:
            self.forwards.end_session(session)
            self.files.end_session(session)

    def _make_processes(self) -> Processes:
        limits = ProcessLimits(spool=self._config.spool, finished=self._config.finished)
        return Processes(
            launcher=self.launcher,
            sessions=self.sessions,
            policies=self.policies,
            audit=self.audit,
            events=self.events,
            compose=composer(self.layout, self.features),
            encode_output=_encode_output,
            encode_notification=lambda method, params: [compose_notification(method, params)],
            limits=fit_descriptors(limits, os.sysconf("SC_OPEN_MAX")),
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Come up, call `ready`, serve, and end in order. Raises what keeps it from coming up."""
        try:
            async with trio.open_nursery() as nursery:
                with self._ending.coming_up() as coming_up:
                    await self._come_up(nursery)
                if not coming_up.cancelled_caught:
                    # What is here now stays: the collector need not look at it again and again.
                    gc.collect()
                    gc.freeze()
                    ready()
                    await self._ending.wanted.wait()
                with trio.CancelScope(shield=True):
                    await self._go_down()
                nursery.cancel_scope.cancel()
        finally:
            self.egress.close()
            self.audit.close()

    async def shutdown(self) -> calls.Empty:
        """See `rpc.handlers.ports.ShutdownApi`."""
        self._ending.end("asked for over a link")
        return calls.Empty()

    async def _come_up(self, nursery: trio.Nursery) -> None:
        await nursery.start(self.storage.serve)
        with self.health.stage("policies"):
            await self.policies.load()
        with self.health.stage("trust"):
            await self.trust.load()
        await nursery.start(self.network.serve)
        with self.health.stage("egress"):
            await nursery.start(self.egress.serve)
        with self.health.stage("sessions"):
            await nursery.start(self.measuring.serve)
            await nursery.start(self.stages.serve)
            await nursery.start(self.guarding.serve)
            await nursery.start(self.folders.serve)
            await self.sessions.load()
        with self.health.stage("processes"):
            await nursery.start(self.processes.serve)
            # After the processes: a deletion that goes on has to know the commands the launcher kept.
            await nursery.start(self.sessions.serve)
            await nursery.start(self.session_disk.serve)
            await self.sessions.reopen()
            await self.egress.stop_others()
        with self.health.stage("bridges"):
            await nursery.start(self.streams.serve)
            await nursery.start(self.files.serve)
            await nursery.start(self.bridges.serve, self._config.bridges)
        with self.health.stage("listen"):
            await nursery.start(self.server.run)
            for uri in self._config.endpoints:
                await nursery.start(self.server.serve, parse_served_endpoint(uri))
        await self.audit.record(
            "daemon.start",
            {
                "version": __version__,
                "pid": os.getpid(),
                "launcher_pid": self.launcher.pid,
                "egress_pid": self.egress.pid,
                "mode": self._mode,
                "profiles": self.policies.profiles,
                "endpoints": self._config.endpoints,
                "degraded": [f"{part}: {reason}" for part, reason in self.health.degraded.items()],
            },
        )

    async def _go_down(self) -> None:
        _log.info("stopping: %s", self._ending.reason)
        running = sum(count for state, count in self.processes.state_counts().items() if state != "exited")
        await self.server.shut_down(_LINKS_GRACE_S)
        await self.bridges.end_all()
        # Each, whatever became of the one before: what is not ended here stays.
        for end in self._ends():
            try:
                await end()
            except CoworkError as error:
                _log.error("not everything could be ended: %s", error.message)
        try:
            await self.audit.record("daemon.stop", {"reason": self._ending.reason, "processes": running})
        except CoworkError as error:
            _log.error("the end of this coworkd is not recorded: %s", error.message)

    def _ends(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        if self._mode == "local":
            return (self.processes.end_all, self.sessions.end_ephemeral, self.egress.quit)
        return (self.processes.end_all,) if self._ending.again else ()

    async def _reload(self) -> None:
        try:
            answer = await self.policies.reload()
        except CoworkError as error:
            _log.error("policies were not reloaded, the old ones hold: %s", error.message)
        else:
            _log.info("policies reloaded; changed: %s", ", ".join(answer.changed) or "nothing")

    def _methods(self) -> MethodTable:
        return MethodTable(
            (
                *link_methods(self.health, token=read_token(self._config.token_file)),
                *admin_methods(self.health, self),
                *session_methods(self.sessions),
                *session_disk_methods(self.session_disk.meter, self.session_disk.pruning, self.session_disk.retention),
                *folder_methods(self.folders, self.stages),
                *approval_methods(self.approvals),
                *egress_methods(self.egress),
                *trust_methods(self.trust),
                *file_methods(self.files),
                *stream_methods(self.streams, self.forwards),
                *bridge_methods(self.bridges),
                *process_methods(self.processes),
                *audit_methods(self.audit),
                *event_methods(self.events),
                *storage_methods(self.storage),
                *policy_methods(self.policies),
            )
        )

    def _sources(self) -> Sources:
        processes = self.processes
        return Sources(
            endpoints=lambda: self._config.endpoints,
            profiles=lambda: self.policies.profiles,
            bubblewrap=lambda: self.features.version,
            launcher_pid=lambda: self.launcher.pid,
            links=lambda: self.server.links,
            sessions=lambda: self.sessions.count,
            processes=processes.state_counts,
            started_total=lambda: processes.started_total,
            start_errors_total=lambda: processes.start_errors_total,
            spool_bytes=lambda: processes.spool_bytes,
            audit_records=lambda: self.audit.records,
            logs=self._logs.logs,
            set_log_level=self._logs.set_log_level,
            doctor=self._examine,
        )

    def _examine(self) -> tuple[calls.Finding, ...]:
        # Imported only when asked for: it brings subprocess and more into a process that stays small otherwise.
        from coworkd.services.doctor import AuditFacts, examine
        from coworkd.services.doctor_network_probes import NetworkSources
        from coworkd.services.doctor_probes import SystemProbes
        from coworkd.services.doctor_storage import StorageFacts

        seq, head = self.audit.head
        sockets = [Path(uri.removeprefix("unix://")) for uri in self._config.endpoints if uri.startswith("unix://")]
        probes = SystemProbes(
            state_dir=Path(self._config.state_dir),
            audit_dir=Path(self._config.state_dir) / "audit",
            launcher_socket=None,
            sockets=sockets,
            launcher=lambda: f"pid {self.launcher.pid} answers",
            # What was torn is cut off and recorded at the opening; what is wrong since then the log has told us.
            audit=lambda: AuditFacts(seq=seq, head=head, torn_bytes=0, broken=self.health.degraded.get("audit")),
            network=NetworkSources(
                egress_pid=lambda: self.egress.pid,
                egress_degraded=lambda: self.egress.degraded,
                presets=self.policies.presets,
                upstream=self._upstream,
                host_uri=self._config.egress.host,
                default_routes=self.network.default_routes,
                reachability=lambda: self.network.reachability,
            ),
            storage=lambda: StorageFacts(
                kind=self.storage.kind,
                state=self.storage.state,
                reason=self.storage.reason,
                mark=self.storage.mark,
                project_quota=self.storage.project_quota,
                reserve_missing=self.storage.reserve.missing,
            ),
            bwrap=self.features.path,
        )
        return examine(probes)

    def _upstream(self) -> str:
        return self.policies.effective_nowait(None).profile.egress.upstream


def read_token(path: str) -> str | None:
    """The token in the file, None where none is wanted. Raises `OSError` where it cannot be read or is empty: fail closed."""
    if not path:
        return None
    token = Path(path).read_text().strip()
    if not token:
        raise OSError(errno.EINVAL, "the token file is empty: put a secret into it, or take token_file away", path)
    return token


@lru_cache(maxsize=1024)
def _events_of(process: str, stream: StreamName) -> StreamEvents:
    return output_events(process, stream)


def _encode_output(process: str, stream: StreamName, offset: int, data: bytes, eof: bool) -> list[bytes | memoryview]:
    return _events_of(process, stream).frame(offset, data, eof=eof)
