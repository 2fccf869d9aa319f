"""The calls of egress and of a session's policy; a part of `model.calls`, which has the rules and gives all of them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from coworkd.model.call_shapes import Answer, Mutating, Params
from coworkd.model.egress import Allowance, EgressEventKind, EgressLimits
from coworkd.model.policy import LimitsPolicy, LimitsRequest


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
    env: dict[str, str] = {}
    """The variables that tell the tools of a session what those of this machine are set to."""


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
    left_out: int = 0
    """How many entries of long lists are not told: a message has its bounds."""


class SetPolicy(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out stays as it is. `egress` is an object as in an srt-settings file, and can only narrow the
    profile's; an empty one takes an earlier one away."""

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
