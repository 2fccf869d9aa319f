"""What a keeper says and keeps: its status, its record on disk, and troubles as errors of the wire and back. Types, and no I/O.

The control socket speaks the wire of docs/protocol.md, so any client of coworkd's drives it too; its methods are
`hello status events stop kill restart grow`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from coworkd.model.errors import CoworkError, InvalidState
from coworkd.wire.fault import encodable
from host_stub.words import MachineEvent, MachineState, Trouble

RECORD_NAME = "last.json"
LIVING = frozenset(MachineState) - {MachineState.STOPPED, MachineState.CRASHED}


class Image(Struct, frozen=True, kw_only=True):
    name: str
    version: str
    architecture: str


class Status(Struct, frozen=True, kw_only=True):
    """A machine as its keeper sees it, or as its last keeper left it."""

    bundle: str
    state: MachineState
    message: str
    """The last thing that was said of its state."""
    since: float | None = None
    """When it came into it, in seconds since the epoch."""
    pid: int | None = None
    keeper_pid: int | None = None
    backend: str | None = None
    uri: str | None = None
    """For `coworkctl --to`."""
    waiting_for: str | None = None
    """Why there is no link to the guest, where there is none."""
    ready_after_s: float | None = None
    degraded: dict[str, str] = {}
    boot_id: str = ""
    version: str = ""
    restarts: int = 0
    last_seq: int = 0
    image: Image | None = None


class Record(Struct, frozen=True, kw_only=True):
    """state/last.json: what outlives a keeper. `machine_created` tells a process from a later one of the same number."""

    state: MachineState
    message: str
    at: float
    keeper_pid: int
    machine_pid: int | None = None
    machine_created: float | None = None
    details: dict[str, Any] = {}


class EventsParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`events`: those behind `after`; where there are none, the first that comes within `wait_s`."""

    after: int = 0
    wait_s: float = 0.0
    limit: int = 96


class EventsAnswer(Struct, frozen=True, kw_only=True):
    events: tuple[MachineEvent, ...]
    missed: int


class StopParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    budget_s: float = 45.0
    reason: str = "asked on the host"


class GrowParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    size_bytes: int


class NoParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of methods that take none."""


def fault_of(trouble: Trouble) -> CoworkError:
    """A trouble as it travels."""
    return InvalidState(trouble.message, trouble=trouble.code, remedy=trouble.remedy, more=encodable(trouble.details))


def trouble_of(error: CoworkError) -> Trouble:
    """The trouble that travelled; any other error as one."""
    code, remedy, more = (error.details.get(name) for name in ("trouble", "remedy", "more"))
    if isinstance(code, str) and isinstance(remedy, str):
        return Trouble(code, error.message, remedy=remedy, details=more if isinstance(more, dict) else None)
    return Trouble("keeper_failed", error.message, remedy="see logs/keeper.log in the bundle")


def encode_trouble(trouble: Trouble) -> dict[str, Any]:
    """For the pipe from a keeper that starts to whoever starts it."""
    return {
        "code": trouble.code,
        "message": trouble.message,
        "remedy": trouble.remedy,
        "details": encodable(trouble.details),
    }
