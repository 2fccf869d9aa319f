"""Every method by name, with the type of its parameters and of its answer: the one table both clients are made from.

A `Method` is data. `Client.session_ensure` and `AsyncClient.session_ensure` are the same `Method` bound to two ways of
calling; their keyword arguments are the fields of the parameter type in `coworkd.model.calls`, checked by mypy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from msgspec import Struct

from coworkd.client.requests import run_request, start_request
from coworkd.model import calls, calls_audit, calls_boot, calls_limits, calls_storage, calls_update
from coworkd.model.calls_tools import ToolInstall, ToolInstalled, ToolList, ToolRemove, ToolRemoved
from coworkd.model.policy import Profile
from coworkd.model.process import ExitRecord, ProcessInfo
from coworkd.model.session import RemovedSession

P = ParamSpec("P")
A = TypeVar("A", bound=Struct)


class Method(Generic[P, A]):
    """One method: its name on the wire, what builds its parameters, and the type of its answer."""

    __slots__ = ("answer", "build", "mutating", "name")

    def __init__(
        self, name: str, build: Callable[P, Struct], answer: type[A], params: type[Struct] | None = None
    ) -> None:
        """`params` is the type of what `build` gives, where that is no type itself."""
        self.name = name
        self.build: Callable[..., Struct] = build
        self.answer = answer
        made = params or build
        self.mutating = isinstance(made, type) and issubclass(made, calls.Mutating)
        """It takes `request_id`, and so can be repeated without happening twice."""


PING = Method("ping", calls.NoParams, calls.Pong)
INFO = Method("info", calls.NoParams, calls.Info)
STATS = Method("stats", calls.NoParams, calls.Stats)
DOCTOR = Method("doctor", calls.NoParams, calls.DoctorAnswer)
REPORT = Method("report", calls.Report, calls.Reported)
LOGS = Method("logs", calls.Logs, calls.LogsAnswer)
SET_LOG_LEVEL = Method("set_log_level", calls.SetLogLevel, calls.Empty)
SHUTDOWN = Method("shutdown", calls_boot.Shutdown, calls.Empty)
SYNC_CLOCK = Method("sync_clock", calls_boot.SyncClock, calls_boot.ClockSynced)
BOOT_TIME = Method("boot_time", calls.NoParams, calls_boot.BootTime)

SESSION_ENSURE = Method("session.ensure", calls.SessionEnsure, calls.SessionEnsured)
SESSION_GET = Method("session.get", calls.SessionName, calls.SessionAnswer)
SESSION_LIST = Method("session.list", calls.NoParams, calls.SessionList)
SESSION_DELETE = Method("session.delete", calls.SessionDelete, RemovedSession)
SESSION_SET_POLICY = Method("session.set_policy", calls.SetPolicy, calls.PolicySet)
SESSION_POLICY = Method("session.policy", calls.SessionName, calls.SessionPolicy)
SESSION_SET_LIMITS = Method("session.set_limits", calls_limits.SetSessionLimits, calls_limits.LimitsSet)
SESSION_PAUSE = Method("session.pause", calls_limits.PauseSession, calls_limits.SessionPaused)
SESSION_RESUME = Method("session.resume", calls_limits.PauseSession, calls_limits.SessionPaused)
SESSION_USAGE = Method("session.usage", calls_storage.SessionUsageParams, calls_storage.SessionUsages)
SESSION_PRUNE = Method("session.prune", calls_storage.SessionPrune, calls_storage.SessionPruned)
SESSION_RETENTION = Method("session.retention", calls_storage.SessionRetention, calls_storage.SessionRetained)

FOLDER_MOUNT = Method("folder.mount", calls.FolderMount, calls.FolderAnswer)
FOLDER_UNMOUNT = Method("folder.unmount", calls.FolderUnmount, calls.FolderUnmounted)
FOLDER_SET_MODE = Method("folder.set_mode", calls.FolderSetMode, calls.FolderAnswer)
FOLDER_LIST = Method("folder.list", calls.FolderList, calls.Folders)
FOLDER_CHANGES = Method("folder.changes", calls.FolderChanges, calls.StagedChanges)
FOLDER_COMMIT = Method("folder.commit", calls.FolderCommit, calls.FolderCommitted)
FOLDER_DISCARD = Method("folder.discard", calls.FolderDiscard, calls.FolderDiscarded)

APPROVAL_LIST = Method("approval.list", calls.ApprovalList, calls.Approvals)
APPROVAL_ANSWER = Method("approval.answer", calls.ApprovalAnswer, calls.ApprovalAnswered)

PROCESS_RUN = Method("process.run", run_request, calls.ProcessRan, calls.ProcessRun)
PROCESS_START = Method("process.start", start_request, calls.ProcessStarted, calls.ProcessStart)
PROCESS_ATTACH = Method("process.attach", calls.ProcessAttach, calls.ProcessAttached)
PROCESS_DETACH = Method("process.detach", calls.ProcessName, calls.Empty)
PROCESS_ACK = Method("process.ack", calls.ProcessAck, calls.Empty)
PROCESS_WRITE_STDIN = Method("process.write_stdin", calls.WriteStdin, calls.StdinOffset)
PROCESS_CLOSE_STDIN = Method("process.close_stdin", calls.CloseStdin, calls.Empty)
PROCESS_RESIZE = Method("process.resize", calls.Resize, calls.Empty)
PROCESS_SIGNAL = Method("process.signal", calls.SignalProcess, calls.Empty)
PROCESS_KILL = Method("process.kill", calls.KillProcess, calls.Empty)
PROCESS_WAIT = Method("process.wait", calls.WaitProcess, ExitRecord)
PROCESS_GET = Method("process.get", calls.ProcessName, ProcessInfo)
PROCESS_LIST = Method("process.list", calls.ProcessListParams, calls.ProcessList)
PROCESS_SET_LIMITS = Method("process.set_limits", calls_limits.SetProcessLimits, calls_limits.LimitsSet)
PROCESS_FORGET = Method("process.forget", calls.ForgetProcess, calls.Empty)

EGRESS_CHECK = Method("egress.check", calls.EgressCheck, calls.EgressChecked)
EGRESS_LOG = Method("egress.log", calls.EgressLog, calls.EgressRecords)
EGRESS_ALLOW = Method("egress.allow", calls.EgressAllow, calls.EgressAllowed)
EGRESS_STATUS = Method("egress.status", calls.NoParams, calls.EgressStatus)
EGRESS_PRESETS = Method("egress.presets", calls.NoParams, calls.EgressPresets)

CA_INSTALL = Method("ca.install", calls.CaInstall, calls.CaInstalled)
CA_LIST = Method("ca.list", calls.NoParams, calls.CaInstalled)
CA_REMOVE = Method("ca.remove", calls.CaName, calls.Empty)

AUDIT_TAIL = Method("audit.tail", calls.AuditTail, calls.AuditRecords)
AUDIT_QUERY = Method("audit.query", calls_audit.AuditQuery, calls.AuditRecords)
AUDIT_EXPORT = Method("audit.export", calls_audit.AuditExport, calls_audit.AuditPiece)
AUDIT_VERIFY = Method("audit.verify", calls.NoParams, calls.AuditVerified)
EVENTS_SUBSCRIBE = Method("events.subscribe", calls.Subscribe, calls.Subscribed)
EVENTS_UNSUBSCRIBE = Method("events.unsubscribe", calls.NoParams, calls.Empty)
POLICY_SHOW = Method("policy.show", calls.PolicyShow, Profile)
POLICY_RELOAD = Method("policy.reload", calls.Mutating, calls.PolicyReloaded)

FILE_READ = Method("file.read", calls.FileRead, calls.FileData)
FILE_WRITE = Method("file.write", calls.FileWrite, calls.FileWritten)
FILE_LIST = Method("file.list", calls.FileListParams, calls.FileListed)
FILE_STAT = Method("file.stat", calls.FilePath, calls.FileStated)
FILE_MKDIR = Method("file.mkdir", calls.FileMkdir, calls.Empty)
FILE_MOVE = Method("file.move", calls.FileMove, calls.Empty)
FILE_REMOVE = Method("file.remove", calls.FileRemove, calls.FileRemoved)
FILE_UPLOAD = Method("file.upload", calls.FileUpload, calls.FileUploadOpened)
FILE_DOWNLOAD = Method("file.download", calls.FileDownload, calls.FileDownloadOpened)

FORWARD_OPEN = Method("forward.open", calls.ForwardOpen, calls.StreamOpened)
STREAM_WRITE = Method("stream.write", calls.StreamWrite, calls.StreamOffset)
STREAM_CLOSE_WRITE = Method("stream.close_write", calls.StreamCloseWrite, calls.Empty)
STREAM_ACK = Method("stream.ack", calls.StreamAck, calls.Empty)
STREAM_CLOSE = Method("stream.close", calls.StreamClose, calls.Empty)
BRIDGE_OPEN = Method("bridge.open", calls.BridgeOpen, calls.BridgeOpened)
BRIDGE_LIST = Method("bridge.list", calls.NoParams, calls.BridgeList)
BRIDGE_CLOSE = Method("bridge.close", calls.BridgeClose, calls.Empty)

TOOL_INSTALL = Method("tool.install", ToolInstall, ToolInstalled)
TOOL_LIST = Method("tool.list", calls.NoParams, ToolList)
TOOL_REMOVE = Method("tool.remove", ToolRemove, ToolRemoved)

STORAGE_USAGE = Method("storage.usage", calls.NoParams, calls_storage.StorageUsage)
STORAGE_TRIM = Method("storage.trim", calls_storage.StorageTrim, calls_storage.StorageTrimmed)
STORAGE_GROW = Method("storage.grow", calls_storage.StorageGrow, calls_storage.StorageGrown)

UPDATE_STATUS = Method("update.status", calls.NoParams, calls_update.UpdateStatus)
UPDATE_APPLY = Method("update.apply", calls_update.UpdateApply, calls_update.UpdateApplied)
UPDATE_ROLLBACK = Method("update.rollback", calls_update.UpdateRollback, calls_update.UpdateRolledBack)


def all_methods() -> dict[str, Method[..., Any]]:
    """Every method of this module by its name on the wire."""
    return {item.name: item for item in globals().values() if isinstance(item, Method)}
