"""What handlers call: the verbs of services, parameters in, answer out.

Declares Protocols only; mypy checks them against the services that `app` hands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from coworkd.model import calls, calls_audit, calls_boot, calls_limits, calls_storage, calls_update
from coworkd.model.calls_tools import ToolInstall, ToolInstalled, ToolList, ToolRemove, ToolRemoved
from coworkd.model.ports import LinkPort
from coworkd.model.process import ExitRecord, ProcessInfo
from coworkd.model.session import RemovedSession


class HelloApi(Protocol):
    """Who answers `hello`."""

    def hello_answer(self, features: tuple[str, ...], protocol: int = ..., /) -> calls.HelloAnswer: ...


class HealthApi(Protocol):
    """How it is."""

    async def info(self) -> calls.Info: ...

    async def stats(self) -> calls.Stats: ...

    async def doctor(self) -> calls.DoctorAnswer: ...

    async def report(self, params: calls.Report, /) -> calls.Reported: ...


class LogsApi(Protocol):
    """The log of the day."""

    def logs(self, params: calls.Logs, /) -> calls.LogsAnswer: ...

    def set_log_level(self, params: calls.SetLogLevel, /) -> calls.Empty: ...


class BootApi(Protocol):
    """How this machine came up."""

    async def boot_time(self) -> calls_boot.BootTime: ...


class ClockApi(Protocol):
    """The guest's clock."""

    async def sync(self, params: calls_boot.SyncClock, /) -> calls_boot.ClockSynced: ...


class ShutdownApi(Protocol):
    """Who can stop this coworkd."""

    async def shutdown(self, params: calls_boot.Shutdown, /) -> calls.Empty:
        """Begin to stop, and return at once: the answer must still be sent."""


class SessionsApi(Protocol):
    """Sessions."""

    async def ensure(self, params: calls.SessionEnsure, link: LinkPort, /) -> calls.SessionEnsured: ...

    async def get(self, params: calls.SessionName, /) -> calls.SessionAnswer: ...

    async def list(self) -> calls.SessionList: ...

    async def delete(self, params: calls.SessionDelete, /) -> RemovedSession: ...

    async def set_policy(self, params: calls.SetPolicy, /) -> calls.PolicySet: ...

    async def policy(self, params: calls.SessionName, /) -> calls.SessionPolicy: ...

    async def set_limits(self, params: calls_limits.SetSessionLimits, /) -> calls_limits.LimitsSet: ...

    async def pause(self, params: calls_limits.PauseSession, /) -> calls_limits.SessionPaused: ...

    async def resume(self, params: calls_limits.PauseSession, /) -> calls_limits.SessionPaused: ...


class ProcessLimitsApi(Protocol):
    """The limits of processes."""

    async def set_limits(self, params: calls_limits.SetProcessLimits, /) -> calls_limits.LimitsSet: ...


class FoldersApi(Protocol):
    """Folders of sessions."""

    async def mount(self, params: calls.FolderMount, /) -> calls.FolderAnswer: ...

    async def unmount(self, params: calls.FolderUnmount, /) -> calls.FolderUnmounted: ...

    async def set_mode(self, params: calls.FolderSetMode, /) -> calls.FolderAnswer: ...

    async def list(self, params: calls.FolderList, /) -> calls.Folders: ...


class StagesApi(Protocol):
    """What staged folders hold back."""

    async def changes(self, params: calls.FolderChanges, /) -> calls.StagedChanges: ...

    async def commit(self, params: calls.FolderCommit, /) -> calls.FolderCommitted: ...

    async def discard(self, params: calls.FolderDiscard, /) -> calls.FolderDiscarded: ...


class ApprovalsApi(Protocol):
    """Deletes that wait for a person."""

    async def list(self, params: calls.ApprovalList, /) -> calls.Approvals: ...

    async def answer(self, params: calls.ApprovalAnswer, link: LinkPort, /) -> calls.ApprovalAnswered: ...


class ProcessesApi(Protocol):
    """Processes."""

    async def run(self, params: calls.ProcessRun, link: LinkPort, /) -> calls.ProcessRan: ...

    async def start(self, params: calls.ProcessStart, link: LinkPort, /) -> calls.ProcessStarted: ...

    async def attach(self, params: calls.ProcessAttach, link: LinkPort, /) -> calls.ProcessAttached: ...

    async def detach(self, params: calls.ProcessName, link: LinkPort, /) -> calls.Empty: ...

    async def ack(self, params: calls.ProcessAck, link: LinkPort, /) -> calls.Empty: ...

    async def write_stdin(self, params: calls.WriteStdin, /) -> calls.StdinOffset: ...

    async def close_stdin(self, params: calls.CloseStdin, /) -> calls.Empty: ...

    async def resize(self, params: calls.Resize, /) -> calls.Empty: ...

    async def signal(self, params: calls.SignalProcess, /) -> calls.Empty: ...

    async def kill(self, params: calls.KillProcess, /) -> calls.Empty: ...

    async def wait(self, params: calls.WaitProcess, /) -> ExitRecord: ...

    async def get(self, params: calls.ProcessName, /) -> ProcessInfo: ...

    async def list(self, params: calls.ProcessListParams, /) -> calls.ProcessList: ...

    async def forget(self, params: calls.ForgetProcess, link: LinkPort, /) -> calls.Empty: ...


class AuditApi(Protocol):
    """Reading the audit log."""

    async def tail(self, params: calls.AuditTail, /) -> calls.AuditRecords: ...

    async def query(self, params: calls_audit.AuditQuery, /) -> calls.AuditRecords: ...

    async def export(self, params: calls_audit.AuditExport, /) -> calls_audit.AuditPiece: ...

    async def verify(self) -> calls.AuditVerified: ...


class EventsApi(Protocol):
    """Published events."""

    def subscribe(self, params: calls.Subscribe, link: LinkPort, /) -> calls.Subscribed: ...

    def unsubscribe(self, link: LinkPort, /) -> calls.Empty: ...


class PoliciesApi(Protocol):
    """Policies."""

    def show(self, params: calls.PolicyShow, /) -> Mapping[str, Any]: ...

    async def reload(self) -> calls.PolicyReloaded: ...


class EgressApi(Protocol):
    """The way out of sessions."""

    async def check(self, params: calls.EgressCheck, /) -> calls.EgressChecked: ...

    async def log(self, params: calls.EgressLog, /) -> calls.EgressRecords: ...

    async def allow(self, params: calls.EgressAllow, /) -> calls.EgressAllowed: ...

    async def status(self) -> calls.EgressStatus: ...

    async def presets(self) -> calls.EgressPresets: ...


class ToolsApi(Protocol):
    """Tools from the share."""

    async def install(self, params: ToolInstall, /) -> ToolInstalled: ...

    async def list(self) -> ToolList: ...

    async def remove(self, params: ToolRemove, /) -> ToolRemoved: ...


class CaApi(Protocol):
    """Certificates that sandboxes trust."""

    async def install(self, params: calls.CaInstall, /) -> calls.CaInstalled: ...

    async def list(self) -> calls.CaInstalled: ...

    async def remove(self, params: calls.CaName, /) -> calls.Empty: ...


class FilesApi(Protocol):
    """Files of sessions."""

    async def read(self, params: calls.FileRead, /) -> calls.FileData: ...

    async def stat(self, params: calls.FilePath, /) -> calls.FileStated: ...

    async def list(self, params: calls.FileListParams, /) -> calls.FileListed: ...

    async def write(self, params: calls.FileWrite, link: LinkPort, /) -> calls.FileWritten: ...

    async def mkdir(self, params: calls.FileMkdir, link: LinkPort, /) -> calls.Empty: ...

    async def move(self, params: calls.FileMove, link: LinkPort, /) -> calls.Empty: ...

    async def remove(self, params: calls.FileRemove, link: LinkPort, /) -> calls.FileRemoved: ...

    async def upload(self, params: calls.FileUpload, link: LinkPort, /) -> calls.FileUploadOpened: ...

    async def download(self, params: calls.FileDownload, link: LinkPort, /) -> calls.FileDownloadOpened: ...


class ForwardsApi(Protocol):
    """Streams into the ports of sessions."""

    async def open(self, params: calls.ForwardOpen, link: LinkPort, /) -> calls.StreamOpened: ...


class StreamsApi(Protocol):
    """Streams of a link, whatever they lead to."""

    async def write(self, params: calls.StreamWrite, link: LinkPort, /) -> calls.StreamOffset: ...

    async def close_write(self, params: calls.StreamCloseWrite, link: LinkPort, /) -> calls.Empty: ...

    async def ack(self, params: calls.StreamAck, link: LinkPort, /) -> calls.Empty: ...

    async def close(self, params: calls.StreamClose, link: LinkPort, /) -> calls.Empty: ...


class BridgesApi(Protocol):
    """Socket-to-socket forwarders."""

    async def open(self, params: calls.BridgeOpen, link: LinkPort, /) -> calls.BridgeOpened: ...

    async def list(self) -> calls.BridgeList: ...

    async def close(self, params: calls.BridgeClose, link: LinkPort, /) -> calls.Empty: ...


class UsageApi(Protocol):
    """What sessions take."""

    async def usage(self, params: calls_storage.SessionUsageParams, /) -> calls_storage.SessionUsages: ...


class PruneApi(Protocol):
    """What can be had again."""

    async def prune(self, params: calls_storage.SessionPrune, /) -> calls_storage.SessionPruned: ...


class RetentionApi(Protocol):
    """What goes by itself."""

    async def retention(self, params: calls_storage.SessionRetention, /) -> calls_storage.SessionRetained: ...


class StorageApi(Protocol):
    """The session disk."""

    async def usage(self) -> calls_storage.StorageUsage: ...

    async def trim(self, params: calls_storage.StorageTrim, /) -> calls_storage.StorageTrimmed: ...

    async def grow(self, params: calls_storage.StorageGrow, /) -> calls_storage.StorageGrown: ...


class UpdateApi(Protocol):
    """Which coworkd runs."""

    async def status(self) -> calls_update.UpdateStatus: ...

    async def apply(self, params: calls_update.UpdateApply, /) -> calls_update.UpdateApplied: ...

    async def rollback(self, params: calls_update.UpdateRollback, /) -> calls_update.UpdateRolledBack: ...
