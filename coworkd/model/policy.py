"""Policy: what may be done.

A `Profile` is one file of `policies/profiles/`, all keys given after layering; the `Ceiling` bounds what a request
may ask for; `EffectivePolicy` is the pure result for one session or process, with a sentence for everything that was
narrowed. Sizes are bytes, times seconds, `0` in `timeout_s` means none.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coworkd.model.egress import EgressSettings

FolderMode = Literal["ro", "rw", "rwd", "staged"]
SeccompBase = Literal["dev", "strict"]


class SandboxPolicy(Struct, frozen=True, kw_only=True):
    """`[sandbox]`: which filters and which warm pool."""

    base: SeccompBase
    seccomp: str
    warm: int
    ask_delete: bool


class LimitsPolicy(Struct, frozen=True, kw_only=True):
    """`[limits]`: cgroup v2 values and rlimits. `fsize_max_bytes` and `cpu_time_s`: 0 is none."""

    memory_max_bytes: int
    memory_high_bytes: int
    swap_max_bytes: int
    pids_max: int
    cpu_max: float
    cpu_weight: int
    io_weight: int
    tmp_max_bytes: int
    disk_max_bytes: int
    nofile: int
    fsize_max_bytes: int
    cpu_time_s: int
    core_max_bytes: int
    timeout_s: float
    spool_max_bytes: int = 64 * 1024 * 1024
    """What of one stream of a command may be kept at most."""


class FoldersPolicy(Struct, frozen=True, kw_only=True):
    """`[folders]`: which modes a session may have, and whether a folder may hold a listening socket."""

    modes: tuple[FolderMode, ...]
    allow_sockets: bool


class EgressPolicy(Struct, frozen=True, kw_only=True):
    """`[egress]`: which srt-settings file, the way out, and for how long a host may allow more (0: never)."""

    settings: str
    upstream: str
    allow_max_s: float


class Profile(Struct, frozen=True, kw_only=True):
    """One profile with every key present."""

    name: str
    sandbox: SandboxPolicy
    limits: LimitsPolicy
    folders: FoldersPolicy
    egress: EgressPolicy


class SeccompProgram(Struct, frozen=True, kw_only=True):
    """A compiled and checked cBPF program: `sock_filter` records, 8 bytes each, native byte order."""

    sha256: str
    bpf: bytes
    source: str
    """What it was made from, for people: `base:dev` or a file name."""


class EffectivePolicy(Struct, frozen=True, kw_only=True):
    """What holds for one session or process: profile ∩ ceiling ∩ request, with both compiled filters."""

    profile: Profile
    base_filter: SeccompProgram
    admin_filter: SeccompProgram
    egress: EgressSettings = EgressSettings(source="no settings")
    """What the profile's settings say; without any nothing is reached."""
    narrowed: tuple[str, ...] = ()


class LimitsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a host may ask for in `limits`; it can only narrow, and what was cut is told in `narrowed`."""

    memory_max: int | None = None
    memory_high: int | None = None
    swap_max: int | None = None
    pids_max: int | None = None
    cpu_max: float | None = None
    cpu_weight: int | None = None
    io_weight: int | None = None
    tmp_max: int | None = None
    disk_max: int | None = None
    nofile: int | None = None
    fsize_max: int | None = None
    cpu_time_s: int | None = None
    core_max: int | None = None
