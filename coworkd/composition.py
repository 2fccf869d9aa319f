"""Every service of one coworkd, built and told of each other. Nothing runs here and nothing is awaited: `app` does that.

What a service needs of one that is built later it gets by `attach`. Closures of this module are the only place where two services meet.
"""

from __future__ import annotations

import os
from functools import lru_cache, partial
from pathlib import Path

from coworkd import __version__
from coworkd.auditlog.rotation import RotationLimits
from coworkd.bring_up import Ground, Mode
from coworkd.config import Config
from coworkd.model.process import StreamName
from coworkd.rpc.stream_data import encode_stream_data
from coworkd.sandbox.compose import Composer
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
from coworkd.services.launching import Connect
from coworkd.services.network import Network
from coworkd.services.policies import PolicyStore
from coworkd.services.pressure import PressureWatch
from coworkd.services.process_limiting import ProcessLimiting, add_usage
from coworkd.services.process_limits import ProcessLimits, fit_descriptors
from coworkd.services.processes import Processes
from coworkd.services.recovery import Recovery
from coworkd.services.session_disk import SessionDisk
from coworkd.services.session_home import Homes
from coworkd.services.session_measuring import Measuring
from coworkd.services.session_records import RecordStore
from coworkd.services.sessions import Sessions
from coworkd.services.share import Share
from coworkd.services.share_worker import ShareWorker
from coworkd.services.spool_files import SpoolFiles
from coworkd.services.stages import Stages
from coworkd.services.storage_quota import ProjectQuota
from coworkd.services.streams import Streams
from coworkd.services.tools import Tools
from coworkd.services.tools_fetching import Fetching
from coworkd.services.trust import Trust
from coworkd.system.guest import read_bwrap_features, read_layout
from coworkd.wire.connection import compose_notification
from coworkd.wire.stream import StreamEvents, output_events

FALLBACK_AUDIT_BYTES = 8 * 1024 * 1024
"""The bound of the audit log in the bare directory below a mount point whose disk is absent."""


class Composition:
    """The services, each by its name. `close` ends what needs no loop to end."""

    def __init__(self, config: Config, *, mode: Mode, connect: Connect, ground: Ground) -> None:
        """`connect` reaches coworkd-egress; `ground` is up, and stays its maker's to close."""
        self._config = config
        self._mode = mode
        self.health = ground.health
        self.events = ground.events
        self.launcher = ground.launcher
        self.storage = ground.storage
        with self.health.stage("audit"):
            self.audit = self._open_audit(ground.boot_id)
        self.recovery = Recovery(audit=self.audit, events=self.events)
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
        self.tools = self._make_tools()
        self.egress = self._make_egress(connect)
        self.network = Network(
            events=self.events,
            upstream=self.upstream,
            host_uri=config.egress.host,
            probe=config.network.probe,
            on_state=lambda reason: self.health.degrade("network", reason),
        )
        self.share = Share(
            config.share,
            worker=ShareWorker(self.launcher.folders),
            events=self.events,
            on_state=lambda reason: self.health.degrade("share", reason),
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
        self.pressure = self._make_pressure()
        self.processes = self._make_processes()
        self.process_limits = self._make_process_limits()
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
        self.storage.attach(self.audit, on_back=lambda reason: ground.ending.end(reason, again=True))

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

    def _make_tools(self) -> Tools:
        config = self._config
        return Tools(
            config.state_dir,
            share_root=config.share_root,
            keep=config.tools.keep,
            max_bytes=config.tools.max_size,
            fetching=Fetching(self.launcher.folders),
            storage=self.storage,
            audit=self.audit,
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
            groups=self.launcher.groups,
            reowner=self.measuring,
            folders=self.folders,
            policies=self.policies,
            egress=self.egress,
            trust=self.trust,
            tools=self.tools,
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
            groups=self.launcher.groups,
            stages=self.stages,
            storage=self.storage,
            audit=self.audit,
            events=self.events,
        )

    def _make_pressure(self) -> PressureWatch:
        return PressureWatch(
            groups=self.launcher.groups,
            events=self.events,
            runs_in=lambda session: self.processes.count(session),
            on_state=lambda reason: self.health.degrade("pressure", reason),
        )

    def _make_process_limits(self) -> ProcessLimiting:
        return ProcessLimiting(
            get=self.processes.get,
            groups=self.launcher.groups,
            sessions=self.sessions,
            policies=self.policies,
            audit=self.audit,
        )

    def _make_bridges(self) -> Bridges:
        config = self._config
        own = (config.launcher_socket, config.egress_socket, *config.unix_sockets)
        return Bridges(
            ends=Ends(sessions=self.sessions, launcher=self.launcher, own_sockets=own),
            audit=self.audit,
            on_degraded=self.health.degrade,
            allow_bridges=config.allow_bridges,
        )

    def _make_processes(self) -> Processes:
        limits = ProcessLimits(spool=self._config.spool, finished=self._config.finished)
        return Processes(
            launcher=self.launcher,
            sessions=self.sessions,
            policies=self.policies,
            audit=self.audit,
            events=self.events,
            compose=Composer(self.layout, self.features),
            measured=partial(add_usage, self.launcher.groups),
            listeners=(self.pressure,),
            encode_output=_encode_output,
            encode_notification=lambda method, params: [compose_notification(method, params)],
            files=SpoolFiles(Path(self._config.state_dir) / "spools", set_project=self.quota.set_project).open,
            limits=fit_descriptors(limits, os.sysconf("SC_OPEN_MAX")),
        )

    def _session_turned(self, session: str, *, is_open: bool) -> None:
        self.bridges.look()
        self.pressure.session_turned(session, is_open=is_open)
        if not is_open:
            self.forwards.end_session(session)
            self.files.end_session(session)

    def close(self) -> None:
        self.egress.close()
        self.audit.close()

    def upstream(self) -> str:
        """The way out of the profile that holds where none is named."""
        return self.policies.effective_nowait(None).profile.egress.upstream


@lru_cache(maxsize=1024)
def _events_of(process: str, stream: StreamName) -> StreamEvents:
    return output_events(process, stream)


def _encode_output(process: str, stream: StreamName, offset: int, data: bytes, eof: bool) -> list[bytes | memoryview]:
    return _events_of(process, stream).frame(offset, data, eof=eof)
