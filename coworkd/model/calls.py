"""The shapes of the calls: one frozen `Params` type per method and one type per answer.

Unknown fields are refused (a limit dropped in silence is a policy widened); `bool` is never an integer. Every mutating
call takes `request_id`. Fields may be added, never renamed. Times are epoch seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from coworkd.model.bridge import BridgeInfo
from coworkd.model.egress import Allowance, EgressEventKind, EgressLimits
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsPolicy, LimitsRequest
from coworkd.model.process import Exit, OnFull, ProcessInfo, Rusage, TtySize
from coworkd.model.session import FailedFolder, FolderGrant, SessionInfo


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of one call."""


class Mutating(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of a call that changes something: the same `request_id` gets the first answer again for 10 minutes."""

    request_id: str | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """The answer of one call."""


class Empty(Answer, frozen=True, kw_only=True):
    """Nothing to say but that it was done."""


class NoParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call without parameters: `[{}]`."""


# -- the link -----------------------------------------------------------------------------------------------------


class ProtocolRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protocol versions a client speaks, both ends included."""

    min: int
    max: int


class Hello(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    client: str
    protocol: ProtocolRange
    token: str | None = None


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
    uptime_s: float
    links: int
    sessions: int
    processes: dict[str, int]
    started_total: int
    start_errors_total: int
    spool_bytes: int
    rss_bytes: dict[str, int]
    audit_records: int


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `doctor`."""

    check: str
    state: Literal["ok", "degraded", "failed"]
    detail: str
    remedy: str = ""


class DoctorAnswer(Answer, frozen=True, kw_only=True):
    findings: tuple[Finding, ...]


class Logs(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    limit: int = 200
    component: str | None = None
    level: str | None = None


class LogLine(Struct, frozen=True, kw_only=True):
    at: float
    level: str
    component: str
    message: str
    fields: dict[str, Any]


class LogsAnswer(Answer, frozen=True, kw_only=True):
    lines: tuple[LogLine, ...]
    dropped: int


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


# -- processes ----------------------------------------------------------------------------------------------------


class ProcessStart(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    argv: list[OsBytes]
    env: dict[str, str] | None = None
    cwd: OsBytes | None = None
    stdin: Literal["none", "pipe"] = "none"
    tty: TtySize | None = None
    profile: str | None = None
    limits: LimitsRequest | None = None
    timeout_s: float | None = None
    id: str | None = None
    attach: bool = True
    on_full: OnFull | None = None
    """None: block while a link is attached, else drop the oldest."""


class ProcessStarted(Answer, frozen=True, kw_only=True):
    process: str
    pid: int
    started_at: float
    narrowed: tuple[str, ...] = ()


class ProcessRun(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    argv: list[OsBytes]
    env: dict[str, str] | None = None
    cwd: OsBytes | None = None
    profile: str | None = None
    limits: LimitsRequest | None = None
    timeout_s: float | None = None
    input: bytes | None = None


class PerStream(Struct, frozen=True, kw_only=True):
    stdout: int
    stderr: int


class TruncatedStreams(Struct, frozen=True, kw_only=True):
    stdout: bool
    stderr: bool


Bin = bytes
"""`bytes` under a name that the field `bytes` below does not hide from whoever resolves the annotations."""


class ProcessRan(Answer, frozen=True, kw_only=True):
    exit: Exit
    stdout: Bin
    stderr: Bin
    truncated: TruncatedStreams
    bytes: PerStream
    rusage: Rusage | None
    output: str
    started_at: float
    ended_at: float


class ProcessAttach(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    stdout: int | None = None
    stderr: int | None = None
    tty: int | None = None


class Range(Struct, frozen=True, kw_only=True):
    """What is kept of a stream: `first` inclusive, `end` exclusive."""

    first: int
    end: int


class ProcessAttached(Answer, frozen=True, kw_only=True):
    streams: dict[str, Range]


class ProcessName(Params, frozen=True, kw_only=True, forbid_unknown_fields=True):
    process: str


class WriteStdin(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    offset: int
    data: bytes


class StdinOffset(Answer, frozen=True, kw_only=True):
    offset: int


class CloseStdin(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    offset: int | None = None
    """Close only once this many bytes were taken; None closes after what was taken so far."""


class Resize(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    rows: int
    cols: int


class SignalProcess(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    signal: int | str
    """`"TERM"`, `"SIGTERM"` or 15."""


class KillProcess(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    grace_s: float | None = None
    """Seconds between TERM to the group and the end of the tree; None is 5, 0 is at once."""


class WaitProcess(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str
    timeout_s: float | None = None


class ProcessListParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str | None = None


class ProcessList(Answer, frozen=True, kw_only=True):
    """`omitted` counts those that did not fit into one message: ended ones, the oldest, first."""

    processes: tuple[ProcessInfo, ...]
    omitted: int = 0


class ForgetProcess(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    process: str


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


# -- egress -------------------------------------------------------------------------------------------------------


class EgressCheck(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Neither `session` nor `profile`: the profile `default`."""

    host: str
    port: int = 443
    session: str | None = None
    profile: str | None = None


class EgressChecked(Answer, frozen=True, kw_only=True):
    """What would be decided now. Nothing is resolved or dialled: an address may still be refused afterwards."""

    allowed: bool
    host: str
    """Canonical; as it was asked for where it is no host."""
    port: int
    rule: str | None
    reason: str


class EgressLog(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str | None = None
    limit: int = 100
    refused_only: bool = False


class EgressRecord(Struct, frozen=True, kw_only=True):
    """One thing that happened on the way out; see `model.egress.EgressEvent`. `connection` joins those of one connection."""

    at: float
    kind: EgressEventKind
    session: str
    connection: int
    protocol: str
    host: str
    port: int
    rule: str | None
    reason: str
    upstream: str = ""
    address: str = ""
    count: int = 1
    sent_bytes: int = 0
    received_bytes: int = 0
    took_s: float = 0.0
    method: str = ""
    path: str = ""
    status: int = 0


class EgressRecords(Answer, frozen=True, kw_only=True):
    """The newest last."""

    records: tuple[EgressRecord, ...]
    truncated: bool = False
    """More records fit, but not into one message, or they are no longer kept."""


class EgressAllow(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    session: str
    host: str
    """A host or pattern as in `allowedDomains`."""
    duration_s: float


class EgressAllowed(Answer, frozen=True, kw_only=True):
    host: str
    until: float


class EgressSessionCounts(Struct, frozen=True, kw_only=True):
    """One session's way out: what is open now, and what there was since coworkd started."""

    session: str
    connections: int
    connections_total: int
    refused_total: int
    sent_bytes: int
    received_bytes: int


class EgressStatus(Answer, frozen=True, kw_only=True):
    pid: int
    """Of coworkd-egress; 0 while it is away."""
    degraded: tuple[str, ...]
    unrecorded: int
    """Events that are not durable yet; what they tell of waits."""
    sessions: tuple[EgressSessionCounts, ...]


class PresetShown(Struct, frozen=True, kw_only=True):
    """What a preset came to on this machine; without hosts it allows nothing."""

    hosts: tuple[str, ...]
    made_from: tuple[str, ...] = field(name="from")
    """The files and tools that said so, or `built in`."""


class EgressPresets(Answer, frozen=True, kw_only=True):
    presets: dict[str, PresetShown]
    file: str | None
    """Where those of this machine were read from."""
    made_at: float | None


class EgressLayer(Struct, frozen=True, kw_only=True):
    """One settings file of a session; a host must be allowed by each."""

    source: str
    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    presets: dict[str, tuple[str, ...]]
    """Preset → the patterns it became."""
    allow_private: bool
    inspected: tuple[str, ...]
    warnings: tuple[str, ...]


class SetPolicy(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is. `egress` is an object as in an srt-settings file, and can only narrow the profile's."""

    session: str
    profile: str | None = None
    egress: dict[str, Any] | None = None
    limits: LimitsRequest | None = None
    close_forbidden: bool = True
    """Close the open connections that are forbidden from now on."""


class PolicySet(Answer, frozen=True, kw_only=True):
    effective: dict[str, Any]
    narrowed: tuple[str, ...]
    closed: int
    """How many open connections were closed."""


class SessionPolicy(Answer, frozen=True, kw_only=True):
    """What holds for a session now."""

    profile: str
    egress: tuple[EgressLayer, ...]
    allowances: tuple[Allowance, ...]
    upstream: str
    egress_limits: EgressLimits
    limits: LimitsPolicy
    narrowed: tuple[str, ...]


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
