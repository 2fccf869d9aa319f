"""Egress: what a session may reach, and the words between coworkd and coworkd-egress.

`EgressSettings` is one srt-settings file, parsed; `SessionEgress` what holds for a session: every one of its settings must allow a
host. The words are SOCK_SEQPACKET messages of `system.packet`, MessagePack of the tagged structs below.

Rules of the conversation
- coworkd sends `Begin` first, with a seccomp program; without one coworkd-egress serves nothing. Every request but `Recorded` has exactly
  one answer of the same id.
- `Told` comes unasked: what was decided and what ended. `seq` grows by one an event for as long as that coworkd-egress lives; coworkd
  answers with `Recorded` once the events are durable. No byte of a session leaves before its `open` event is recorded.
- A supervisor that goes leaves everything flowing; new connections wait, bounded, for the next one, which is told again what was not
  recorded.
- Descriptors travel with the message that names them; whoever receives one owns it.

Times are seconds since the epoch, sizes bytes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

# -- what may be reached ------------------------------------------------------------------------------------------


class ParentProxy(Struct, frozen=True, kw_only=True):
    """srt's `network.parentProxy`: URLs (credentials may stand in them) and a NO_PROXY list of those reached without."""

    http: str | None = None
    https: str | None = None
    """For tunnels; `http` where it is not given."""
    no_proxy: str = ""


class MitmProxy(Struct, frozen=True, kw_only=True):
    """srt's `network.mitmProxy`: a proxy on a unix socket that takes the connections to `domains`."""

    socket_path: str
    domains: tuple[str, ...]


class Inspection(Struct, frozen=True, kw_only=True):
    """`coworkd.inspect`: domains whose TLS is opened, and what a request to them must carry."""

    domains: tuple[str, ...] = ()
    token_sha256: tuple[str, ...] = ()
    """Lower-case hex SHA-256 of each approved credential (the words behind `Bearer`, or an `x-api-key`); empty: none is asked for."""


class EgressLimits(Struct, frozen=True, kw_only=True):
    """`coworkd.limits`: bounds of one session. Past them a connection is refused with a typed answer, until there is room again."""

    connections: int = 512
    """Open at once."""
    rate_per_s: float = 200.0
    """New connections a second over time."""
    burst: int = 1000
    """New connections at once, before the rate counts."""
    connect_s: float = 15.0
    """From the request to an open way out: name, addresses and any proxy's answer together."""
    head_s: float = 15.0
    """From the first byte of a request to its last; and how long a connection may say nothing."""
    idle_s: float = 900.0
    """A tunnel through which nothing moves."""


class EgressSettings(Struct, frozen=True, kw_only=True):
    """One srt-settings file: its network part, and our own additions under `coworkd`. Patterns stand as they were written."""

    source: str
    """The file's path, or who asked; for people."""
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    denied_reasons: dict[str, str] = {}
    """Denied pattern → what the one who is refused is told."""
    denied_addresses: tuple[str, ...] = ()
    """Addresses and ranges that no name may resolve to."""
    strict: bool = False
    """srt's `strictAllowlist`: no allowance lifts this allowlist."""
    parent: ParentProxy | None = None
    mitm: MitmProxy | None = None
    presets: tuple[str, ...] = ()
    preset_hosts: dict[str, tuple[str, ...]] = {}
    """Preset → the patterns it became on this machine; filled in when policies are loaded."""
    preset_env: dict[str, str] = {}
    """Variables that tell a session's tools of the mirrors among them; filled in with `preset_hosts`."""
    limits: EgressLimits = EgressLimits()
    allow_private: bool = False
    """Whether a name may resolve to a private range (RFC 1918, fc00::/7, 100.64.0.0/10)."""
    inspect: Inspection | None = None
    warnings: tuple[str, ...] = ()
    """Keys that are valid and do nothing here."""


class Allowance(Struct, frozen=True, kw_only=True):
    """`egress.allow`: a pattern that may be reached until a moment, whatever the allowlist says. Denied patterns still win."""

    pattern: str
    until: float


class SessionEgress(Struct, frozen=True, kw_only=True):
    """What holds for one session. The first of `settings` is the profile's; a host is allowed where each of them allows it."""

    settings: tuple[EgressSettings, ...]
    allowances: tuple[Allowance, ...] = ()
    upstream: str = "direct"
    """`direct`, `host`, or the URL of a parent proxy (`http://HOST:PORT`, `socks5h://HOST:PORT`)."""
    limits: EgressLimits = EgressLimits()


class Verdict(Struct, frozen=True, kw_only=True):
    """What was decided about one host and port, before any name is resolved."""

    allowed: bool
    host: str
    """Canonical; what is dialled where it is allowed."""
    port: int
    rule: str | None
    """The pattern that decided, with where it stands (`*.example.com in egress/default.json`); None where none did."""
    reason: str
    """A sentence for people outside: it names files and rules."""
    told: str = ""
    """The sentence for whoever is refused, inside: it names none."""
    policy_words: str = ""
    """What the policy itself says to whoever is refused (`deniedDomainReasons`)."""
    until: float | None = None
    """The moment at which it is to be decided anew: the end of the allowance that it rests on."""


# -- coworkd asks -------------------------------------------------------------------------------------------------


class Begin(Struct, frozen=True, kw_only=True, tag="begin"):
    """Take over. `filter_bpf` is installed by a coworkd-egress that has none yet. `host_uri` is where the `host` upstream is reached
    (`vsock://2:5006`, `unix:///PATH`). Answered by `Begun`.
    """

    id: int
    version: str
    filter_bpf: bytes
    host_uri: str


class Serve(Struct, frozen=True, kw_only=True, tag="serve"):
    """Serve a session on the listening sockets that came along, all alike; those it had before are closed. Its tunnels stay."""

    id: int
    session: str
    egress: SessionEgress


class Change(Struct, frozen=True, kw_only=True, tag="change"):
    """A new policy for the next connections; with `close_forbidden` the open ones it forbids are closed, and counted in `Done.closed`."""

    id: int
    session: str
    egress: SessionEgress
    close_forbidden: bool = False


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Close the session's listeners and tunnels; unknown sessions are `Done`."""

    id: int
    session: str


class GetCa(Struct, frozen=True, kw_only=True, tag="get_ca"):
    """The certificate of the inspection's CA, which is made when it is first asked for. Answered by `CaMade`."""

    id: int


class TrustRoots(Struct, frozen=True, kw_only=True, tag="trust_roots"):
    """Verify inspected servers by these certificates (PEM; "": none) beside the system's, in place of those given before."""

    id: int
    pem: str


class Count(Struct, frozen=True, kw_only=True, tag="count"):
    """Answered by `Counts`."""

    id: int


class Ping(Struct, frozen=True, kw_only=True, tag="ping"):
    """Answered by `Done`."""

    id: int


class Recorded(Struct, frozen=True, kw_only=True, tag="recorded"):
    """Every event up to `through` is durable. Not answered."""

    through: int


class Quit(Struct, frozen=True, kw_only=True, tag="quit"):
    """Close everything, answer `Done`, exit 0."""

    id: int


Request = Begin | Serve | Change | Stop | GetCa | TrustRoots | Count | Ping | Recorded | Quit

# -- coworkd-egress answers and tells -----------------------------------------------------------------------------


class Begun(Struct, frozen=True, kw_only=True, tag="begun"):
    """It serves. `sessions` are those it still has from an earlier supervisor."""

    id: int
    version: str
    pid: int
    sessions: tuple[str, ...]
    degraded: tuple[str, ...] = ()
    """What of its own walls the kernel did not give."""


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """It was done."""

    id: int
    closed: int = 0


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """It was not done; nothing has changed."""

    id: int
    message: str


class CaMade(Struct, frozen=True, kw_only=True, tag="ca_made"):
    """The inspection CA's certificate; its key never leaves coworkd-egress."""

    id: int
    pem: bytes


class Counts(Struct, frozen=True, kw_only=True, tag="counts"):
    """What there is now, and what there was since the start."""

    id: int
    sessions: int
    connections: int
    connections_total: int
    refused_total: int
    sent_bytes: int
    received_bytes: int
    unrecorded: int
    faults_total: int = 0
    """Connections that ended by a fault of coworkd-egress."""


EgressEventKind = Literal["open", "refused", "close", "request"]
"""`open`: allowed, and waits to be recorded. `refused`: answered with a refusal. `close`: the end of an opened one. `request`: one
request of an inspected connection."""


class EgressEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. `connection` joins the `open` and the `close` of one connection (and its `request`s)."""

    seq: int
    kind: EgressEventKind
    session: str
    connection: int
    at: float
    protocol: Literal["connect", "http", "socks5", "unknown"]
    host: str = ""
    port: int = 0
    rule: str | None = None
    reason: str = ""
    upstream: str = ""
    address: str = ""
    """The address that was dialled, where we resolved."""
    count: int = 1
    """How many refusals of the very same kind this stands for: repeats within a second are told as one."""
    sent_bytes: int = 0
    """From the session to the outside."""
    received_bytes: int = 0
    took_s: float = 0.0
    method: str = ""
    path: str = ""
    """Of an inspected request: without query and credentials."""
    status: int = 0


class Told(Struct, frozen=True, kw_only=True, tag="told"):
    """Events in order of `seq`, without a gap."""

    events: tuple[EgressEvent, ...]


Answer = Begun | Done | Refused | CaMade | Counts
Reply = Begun | Done | Refused | CaMade | Counts | Told
