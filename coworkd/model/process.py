"""Processes: one command of a session, and how it ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.limits import GroupUsage, LimitScope
from coworkd.model.names import OsBytes

StreamName = Literal["stdout", "stderr", "tty"]
ExitReason = Literal["exited", "signaled", "oom", "timeout", "killed", "lost"]
OutputState = Literal["complete", "still_open", "truncated"]
OnFull = Literal["block", "drop_oldest"]
SpoolPlace = Literal["memory", "disk"]
ProcessState = Literal["starting", "running", "exited"]


class TtySize(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A terminal's size in character cells; the kernel keeps unsigned shorts (ioctl_tty(2), TIOCSWINSZ)."""

    rows: int
    cols: int


class SpoolRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much is kept of each stream, and where: `disk` is the session's part of the session disk. None: as configured."""

    limit_bytes: int | None = None
    where: SpoolPlace = "memory"


class Rusage(Struct, frozen=True, kw_only=True):
    """Of the whole tree, from wait4(2) on the sandbox's init: seconds of CPU and the largest resident set in bytes."""

    user_s: float
    system_s: float
    max_rss_bytes: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int


class Exit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the command ended: `code` or `signal`, never both; neither for `lost`.

    `inferred` is true where only bubblewrap's 128+n was seen, so that a command that itself returned 128+n cannot be
    told from one killed by signal n.
    """

    code: int | None
    signal: str | None
    reason: ExitReason
    inferred: bool = False
    scope: LimitScope | None = None
    """Of `oom`: whose limit was reached, how much that allows, and the most that was used."""
    limit_bytes: int | None = None
    peak_bytes: int | None = None
    pids_refused: int | None = None
    """How often it could have no further process; None for never."""


class ExitRecord(Struct, frozen=True, kw_only=True):
    """The `process.exit` event and the answer of `process.wait`; `bytes` maps each stream to its true byte count."""

    process: str
    session: str
    exit: Exit
    output: OutputState
    bytes: dict[str, int]
    rusage: Rusage | None
    started_at: float
    ended_at: float


class ProcessInfo(Struct, frozen=True, kw_only=True):
    """A process as `process.get` and `process.list` tell it."""

    process: str
    session: str
    argv: tuple[OsBytes, ...]
    state: ProcessState
    pid: int | None
    started_at: float
    streams: dict[str, tuple[int, int]]
    """Stream → (first offset kept, end offset)."""
    exit: ExitRecord | None = None
    usage: GroupUsage | None = None
    """What it takes now; told by `process.get`, of a command that runs."""


class ProcessSpec(Struct, frozen=True, kw_only=True):
    """What was asked, already parsed: no NUL anywhere, `argv` not empty, `cwd` absolute or None for the home."""

    process: str
    session: str
    argv: tuple[bytes, ...]
    env: dict[str, str]
    cwd: bytes | None
    stdin: bool
    tty: TtySize | None
