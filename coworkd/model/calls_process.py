"""The shapes of `process.*`: starting, output, input, ends. Offsets count bytes from the first of a stream."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating, Params
from coworkd.model.names import OsBytes
from coworkd.model.policy import LimitsRequest
from coworkd.model.process import Exit, OnFull, ProcessInfo, Rusage, SpoolRequest, TtySize


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
    acknowledge: bool = False
    """See `ProcessAttach`."""
    on_full: OnFull | None = None
    """None: block while a link is attached, else drop the oldest."""
    spool: SpoolRequest | None = None


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
    acknowledge: bool = False
    """Whether this host says with `process.ack` what it has: what it has not is kept for it, and its place for a while."""


class ProcessAck(Params, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of each stream the offset before which all has come."""

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
    offset: int | None = None
    """None puts `data` behind all that was taken, from whomever: for keys, which several may type."""
    data: bytes


class StdinOffset(Answer, frozen=True, kw_only=True):
    offset: int
    """The next one wanted; 0 where that is not known after a restart of coworkd."""
    taken: int | None = None
    """How many of the bytes were taken, where they had no offset."""


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
