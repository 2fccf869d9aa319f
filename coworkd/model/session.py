"""Sessions and their folders."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from coworkd.model.policy import FolderMode, LimitsPolicy, LimitsRequest

SessionState = Literal["ready", "incomplete", "deleting"]
RECORD_FORMAT = 1


class FolderGrant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One folder of a session: `source` is a host path (embedded: a local directory)."""

    name: str
    source: str
    mode: FolderMode
    required: bool = True


class SessionRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a session, as `sessions/NAME.json` in the state directory.

    Invariants: `uid >= MIN_UID`, `gid == uid`; `state == "incomplete"` from the first write until every step of
    `ensure` is done, so a crash half-way is seen and finished by the next `ensure`.
    """

    format: int
    name: str
    uid: int
    gid: int
    profile: str
    created_at: float
    state: SessionState
    folders: tuple[FolderGrant, ...] = ()
    limits: LimitsRequest = LimitsRequest()
    env: dict[str, str] = {}
    egress: dict[str, Any] | None = None
    """What its host asked for on top of the profile's settings: an srt-settings object, valid when it was written."""
    ephemeral: bool = False
    """It goes with the link that made it; one that is found at start has lost its link."""
    used_at: float = 0.0
    """When a command last began in it, as of the last time this was written; 0: never."""
    paused: bool = False
    """Its commands stand still, and none begins in it."""
    reown_from: tuple[int, ...] = ()
    """Whom its home still belongs to, in part: it goes over to `uid`, and nothing runs in the session before that is done."""


class SessionInfo(Struct, frozen=True, kw_only=True):
    """A session as the host sees it."""

    name: str
    uid: int
    gid: int
    home: str
    state: str
    profile: str
    created_at: float
    folders: tuple[FolderGrant, ...]
    processes: int = 0
    paused: bool = False


class FailedFolder(Struct, frozen=True, kw_only=True):
    """An optional folder that could not be mounted, and why."""

    name: str
    error: str


class SessionView(Struct, frozen=True, kw_only=True):
    """What starting a process needs to know of a ready session."""

    name: str
    uid: int
    gid: int
    home: bytes
    """The home inside the sandbox, `/sessions/NAME`."""
    profile: str
    limits: LimitsRequest
    env: dict[str, str]
    folders: tuple[FolderGrant, ...]
    proxied: bool = False
    """Whether the proxies of coworkd-egress are there for its commands."""
    trust_bundle: str | None = None
    """The file of trusted certificates inside the sandbox; None while the guest's own are all there is."""
    own_limits: LimitsPolicy | None = None
    """What holds for all its commands together, as the launcher was last told; None: not known."""
    tool_variables: dict[str, str] = {}
    """What tells its tools of the mirrors that its profile's presets allow."""


class RemovedSession(Struct, frozen=True, kw_only=True):
    """The answer of `session.delete`."""

    name: str
    freed_bytes: int | None = None
