"""The shapes of the calls: one frozen `Params` type per method and one type per answer.

Unknown fields are refused (a limit dropped in silence is a policy widened); `bool` is never an integer. Every mutating
call takes `request_id`. Fields may be added, never renamed. Times are epoch seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from coworkd.model.bridge import BridgeInfo
from coworkd.model.call_shapes import Answer as Answer
from coworkd.model.call_shapes import Empty as Empty
from coworkd.model.call_shapes import Mutating as Mutating
from coworkd.model.call_shapes import NoParams as NoParams
from coworkd.model.call_shapes import Params as Params
from coworkd.model.calls_egress import EgressAllow as EgressAllow
from coworkd.model.calls_egress import EgressAllowed as EgressAllowed
from coworkd.model.calls_egress import EgressCheck as EgressCheck
from coworkd.model.calls_egress import EgressChecked as EgressChecked
from coworkd.model.calls_egress import EgressLayer as EgressLayer
from coworkd.model.calls_egress import EgressLog as EgressLog
from coworkd.model.calls_egress import EgressPresets as EgressPresets
from coworkd.model.calls_egress import EgressRecord as EgressRecord
from coworkd.model.calls_egress import EgressRecords as EgressRecords
from coworkd.model.calls_egress import EgressSessionCounts as EgressSessionCounts
from coworkd.model.calls_egress import EgressStatus as EgressStatus
from coworkd.model.calls_egress import PolicySet as PolicySet
from coworkd.model.calls_egress import PresetShown as PresetShown
from coworkd.model.calls_egress import SessionPolicy as SessionPolicy
from coworkd.model.calls_egress import SetPolicy as SetPolicy
from coworkd.model.calls_files import FileData as FileData
from coworkd.model.calls_files import FileDownload as FileDownload
from coworkd.model.calls_files import FileDownloadOpened as FileDownloadOpened
from coworkd.model.calls_files import FileListed as FileListed
from coworkd.model.calls_files import FileListParams as FileListParams
from coworkd.model.calls_files import FileMkdir as FileMkdir
from coworkd.model.calls_files import FileMove as FileMove
from coworkd.model.calls_files import FilePath as FilePath
from coworkd.model.calls_files import FileRead as FileRead
from coworkd.model.calls_files import FileRemove as FileRemove
from coworkd.model.calls_files import FileRemoved as FileRemoved
from coworkd.model.calls_files import FileStat as FileStat
from coworkd.model.calls_files import FileStated as FileStated
from coworkd.model.calls_files import FileUpload as FileUpload
from coworkd.model.calls_files import FileUploadOpened as FileUploadOpened
from coworkd.model.calls_files import FileWrite as FileWrite
from coworkd.model.calls_files import FileWritten as FileWritten
from coworkd.model.calls_folders import Approval as Approval
from coworkd.model.calls_folders import ApprovalAnswer as ApprovalAnswer
from coworkd.model.calls_folders import ApprovalAnswered as ApprovalAnswered
from coworkd.model.calls_folders import ApprovalList as ApprovalList
from coworkd.model.calls_folders import Approvals as Approvals
from coworkd.model.calls_folders import CommitResult as CommitResult
from coworkd.model.calls_folders import FolderAnswer as FolderAnswer
from coworkd.model.calls_folders import FolderChanges as FolderChanges
from coworkd.model.calls_folders import FolderCommit as FolderCommit
from coworkd.model.calls_folders import FolderCommitted as FolderCommitted
from coworkd.model.calls_folders import FolderDiscard as FolderDiscard
from coworkd.model.calls_folders import FolderDiscarded as FolderDiscarded
from coworkd.model.calls_folders import FolderInfo as FolderInfo
from coworkd.model.calls_folders import FolderList as FolderList
from coworkd.model.calls_folders import FolderMount as FolderMount
from coworkd.model.calls_folders import Folders as Folders
from coworkd.model.calls_folders import FolderSetMode as FolderSetMode
from coworkd.model.calls_folders import FolderUnmount as FolderUnmount
from coworkd.model.calls_folders import FolderUnmounted as FolderUnmounted
from coworkd.model.calls_folders import StagedChange as StagedChange
from coworkd.model.calls_folders import StagedChanges as StagedChanges
from coworkd.model.calls_process import Bin as Bin
from coworkd.model.calls_process import CloseStdin as CloseStdin
from coworkd.model.calls_process import ForgetProcess as ForgetProcess
from coworkd.model.calls_process import KillProcess as KillProcess
from coworkd.model.calls_process import PerStream as PerStream
from coworkd.model.calls_process import ProcessAck as ProcessAck
from coworkd.model.calls_process import ProcessAttach as ProcessAttach
from coworkd.model.calls_process import ProcessAttached as ProcessAttached
from coworkd.model.calls_process import ProcessList as ProcessList
from coworkd.model.calls_process import ProcessListParams as ProcessListParams
from coworkd.model.calls_process import ProcessName as ProcessName
from coworkd.model.calls_process import ProcessRan as ProcessRan
from coworkd.model.calls_process import ProcessRun as ProcessRun
from coworkd.model.calls_process import ProcessStart as ProcessStart
from coworkd.model.calls_process import ProcessStarted as ProcessStarted
from coworkd.model.calls_process import Range as Range
from coworkd.model.calls_process import Resize as Resize
from coworkd.model.calls_process import SignalProcess as SignalProcess
from coworkd.model.calls_process import StdinOffset as StdinOffset
from coworkd.model.calls_process import TruncatedStreams as TruncatedStreams
from coworkd.model.calls_process import WaitProcess as WaitProcess
from coworkd.model.calls_process import WriteStdin as WriteStdin
from coworkd.model.calls_storage import Pruned as Pruned
from coworkd.model.calls_storage import RetentionEntry as RetentionEntry
from coworkd.model.calls_storage import SessionPrune as SessionPrune
from coworkd.model.calls_storage import SessionPruned as SessionPruned
from coworkd.model.calls_storage import SessionRetained as SessionRetained
from coworkd.model.calls_storage import SessionRetention as SessionRetention
from coworkd.model.calls_storage import SessionUsage as SessionUsage
from coworkd.model.calls_storage import SessionUsageParams as SessionUsageParams
from coworkd.model.calls_storage import SessionUsages as SessionUsages
from coworkd.model.calls_storage import StorageGrow as StorageGrow
from coworkd.model.calls_storage import StorageGrown as StorageGrown
from coworkd.model.calls_storage import StorageTrim as StorageTrim
from coworkd.model.calls_storage import StorageTrimmed as StorageTrimmed
from coworkd.model.calls_storage import StorageUsage as StorageUsage
from coworkd.model.policy import LimitsRequest
from coworkd.model.restart import Restarted
from coworkd.model.session import FailedFolder, FolderGrant, SessionInfo

# -- the link -----------------------------------------------------------------------------------------------------


class ProtocolRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protocol versions a client speaks, both ends included."""

    min: int
    max: int


class Hello(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    client: str
    protocol: ProtocolRange
    token: str | None = None
    time: float | None = None
    """The host's clock, in seconds since the epoch; the guest's is stepped to it where it is behind (see `sync_clock`)."""
    keepalive_s: float | None = None
    """The host says something at least so often, and is taken for gone when it does not; None promises nothing."""


class Stage(Struct, frozen=True, kw_only=True):
    """One timed step of coming up; `error` where it failed."""

    name: str
    started_at: float
    took_s: float
    error: str | None = None


class HelloAnswer(Answer, frozen=True, kw_only=True):
    protocol: int
    version: str
    boot_id: str
    features: tuple[str, ...]
    stages: tuple[Stage, ...]
    degraded: dict[str, str]
    """Part → why it does not work. Empty when all is well."""
    restarted: Restarted | None = None
    """What came over, where another coworkd was there before with the same launcher."""


class Pong(Answer, frozen=True, kw_only=True):
    time: float
    monotonic: float


class Info(Answer, frozen=True, kw_only=True):
    version: str
    protocol: int
    boot_id: str
    kernel: str
    machine: str
    bubblewrap: str
    pid: int
    launcher_pid: int
    state_dir: str
    profiles: tuple[str, ...]
    endpoints: tuple[str, ...]


class Stats(Answer, frozen=True, kw_only=True):
    """How much there is of everything at this moment. What ends in `_total` only grows, from 0 at coworkd's start."""

    uptime_s: float
    links: int
    sessions: int
    processes: dict[str, int]
    """By state."""
    started_total: int
    start_errors_total: int
    spool_bytes: int
    rss_bytes: dict[str, int]
    """By program: `coworkd`, and `launcher` and `egress` while they are there; so too the three that follow."""
    audit_records: int
    pss_bytes: dict[str, int] = field(default_factory=dict)
    """The resident set, with what several processes share divided among them."""
    fds: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    spool_memory_bytes: int = 0
    """That of `spool_bytes` which is in memory, and its bound: past it streams keep less than they were promised."""
    spool_memory_limit_bytes: int = 0
    output_bytes: int = 0
    """What the commands that are not forgotten have put out, kept or not."""
    requests_total: int = 0
    streams: int = 0
    events_total: int = 0
    events_missed_total: int = 0
    """Those that went from the ring before a link that follows had them, counted for each link."""
    audit_syncs_total: int = 0
    audit_sync_s_total: float = 0.0
    """What writing audit records took until they were durable."""
    audit_sync_max_s: float = 0.0
    egress: dict[str, int] = field(default_factory=dict)
    """What `egress.status` tells of its sessions, added up, and `unrecorded`."""
    warm: dict[str, int] = field(default_factory=dict)
    """Of the sandboxes that wait for a command, as the launcher counts them."""
    pressure: dict[str, float] = field(default_factory=dict)
    """How much of the time some task waited, in per cent of the last ten seconds, by resource; empty where the kernel does not say."""
    loop_lag_s: float = 0.0
    """By how much the loop that answers hosts was late, at most, in the last while."""
    idle_for_s: float = 0.0
    """How long nobody has asked for anything and no command has put anything out."""


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `doctor`."""

    check: str
    state: Literal["ok", "degraded", "failed"]
    detail: str
    remedy: str = ""


class DoctorAnswer(Answer, frozen=True, kw_only=True):
    findings: tuple[Finding, ...]


class Report(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Asks for what the guest's machine tells for a report of an error, redacted there (docs/health.md)."""

    salt: bytes = b""
    """Makes pseudonyms: the same of one name for the same salt; none: a fresh one."""
    names: tuple[str, ...] = ()
    """Names that have pseudonyms wherever they stand, those of sessions that are gone as well."""
    with_names: bool = False
    with_commands: bool = False


class ReportPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part: as JSON text, or why it is missing."""

    file: str
    source: str
    json: str | None = None
    missing: str | None = None
    left_out: int = 0
    """How many words and values were."""


class Reported(Answer, frozen=True, kw_only=True):
    parts: tuple[ReportPart, ...]


class Logs(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    limit: int = 200
    component: str | None = None
    level: str | None = None
    after: int | None = None
    """Lines behind this number, oldest first, as many as `limit` says; None: the newest."""


class LogLine(Struct, frozen=True, kw_only=True):
    at: float
    level: str
    component: str
    message: str
    fields: dict[str, Any]


class LogsAnswer(Answer, frozen=True, kw_only=True):
    lines: tuple[LogLine, ...]
    dropped: int
    next: int = 0
    """What to give as `after` to go on behind these lines; numbers begin with 1 in each coworkd."""
    missed: int = 0
    """How many lines behind `after` were gone before they were asked for."""


class SetLogLevel(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    level: Literal["debug", "info", "warning", "error"]
    component: str | None = None


# -- sessions -----------------------------------------------------------------------------------------------------


class SessionEnsure(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    resume: Literal["auto", "new", "existing"] = "auto"
    profile: str | None = None
    folders: list[FolderGrant] | None = None
    limits: LimitsRequest | None = None
    env: dict[str, str] | None = None
    ephemeral: bool = False
    """Deleted with all it holds when the link that made it goes, or coworkd stops (coworkctl run without --session)."""
    skeleton: bool | None = None
    """Whether a new home begins with the configured skeleton; None: where there is one."""


class SessionEnsured(Answer, frozen=True, kw_only=True):
    session: SessionInfo
    created: bool
    failed_folders: tuple[FailedFolder, ...]
    narrowed: tuple[str, ...] = ()


class SessionName(Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    session: str


class SessionAnswer(Answer, frozen=True, kw_only=True):
    session: SessionInfo


class SessionList(Answer, frozen=True, kw_only=True):
    sessions: tuple[SessionInfo, ...]


class SessionDelete(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    force: bool = False
    """Kill what still runs in it; without it a session with a running command is `FAILED_PRECONDITION`."""


# -- audit, events, policy ----------------------------------------------------------------------------------------


class AuditTail(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    limit: int = 100
    session: str | None = None


class AuditRecords(Answer, frozen=True, kw_only=True):
    records: tuple[dict[str, Any], ...]
    truncated: bool = False
    """More records fit, but not into one message."""


class AuditVerified(Answer, frozen=True, kw_only=True):
    ok: bool
    records: int
    first: int
    last: int
    head: str
    """SHA-256 of the newest record, lower-case hex: keep it elsewhere to notice a log that was cut at its end."""
    problem: str | None = None


class Subscribe(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    after: int | None = None
    """The last sequence number seen; None starts with what comes next."""


class Subscribed(Answer, frozen=True, kw_only=True):
    next: int
    missed: int
    """How many events after `after` are no longer in the ring."""


class PolicyShow(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    profile: str | None = None


class PolicyReloaded(Answer, frozen=True, kw_only=True):
    profiles: tuple[str, ...]
    changed: tuple[str, ...]


# -- streams, forwards, bridges ----------------------------------------------------------------------------------


class ForwardOpen(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    port: int
    window: int | None = None
    """At most so many bytes are sent beyond what `stream.ack` named; None: only the link holds them back."""


class StreamOpened(Answer, frozen=True, kw_only=True):
    stream: str


class StreamWrite(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    stream: str
    offset: int
    data: bytes


class StreamOffset(Answer, frozen=True, kw_only=True):
    """The next offset wanted; less than all was taken means come back later with the rest."""

    offset: int


class StreamCloseWrite(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    stream: str
    offset: int | None = None
    """Close only if exactly this many bytes were taken; None closes after what was taken so far."""


class StreamAck(Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stream: str
    offset: int
    """Everything before it was taken by the host."""


class StreamClose(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    stream: str


class BridgeOpen(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    listen: str
    connect: str


class BridgeOpened(Answer, frozen=True, kw_only=True):
    bridge: BridgeInfo


class BridgeList(Answer, frozen=True, kw_only=True):
    bridges: tuple[BridgeInfo, ...]


class BridgeClose(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str


# -- certificates -------------------------------------------------------------------------------------------------


class CaInstall(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    """What was installed under the same name before is replaced."""
    pem: str


class InstalledCa(Struct, frozen=True, kw_only=True):
    """One certificate of an authority that sandboxes trust beside the guest's own."""

    name: str
    subject: str
    sha256: str
    """Of the certificate, lower-case hex."""
    not_after: float


class CaInstalled(Answer, frozen=True, kw_only=True):
    installed: tuple[InstalledCa, ...]


class CaName(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
