"""bundle.json: how one machine is to be run, as it was said at `create`. Bytes ↔ types; no I/O.

A person may edit the file while the machine does not run. So a field that is not known is refused with the nearest right spelling, and
every number has its bounds; what is wrong with the file is said as file, field and what to write.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta, Struct

from coworkd.model.errors import UNDECODABLE
from host_stub.words import Architecture, Boot, DiskBus, Trouble

FORMAT = 1
MIN_MEMORY_BYTES = 256 << 20
MAX_MEMORY_BYTES = 1 << 40
MAX_CPUS = 64
FIRST_CID, LAST_CID = 3, 0x7FFF_FFFF

BackendChoice = Literal["auto", "qemu", "vz"]
AcceleratorChoice = Literal["auto", "kvm", "hvf", "tcg"]
RestartMode = Literal["hung", "always", "never"]
"""Which guest is started again by itself: one that hangs or resets, also one that crashed, or none."""
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_COMMAND_LINE = r"^[\x20-\x7e]{0,1024}$"


class EgressSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way out on this host, for all sessions of the machine: what `egress.EgressOptions` takes."""

    settings: str | None = None
    """A file of srt-settings."""
    parent: str | None = None
    """The URL of a proxy. It may hold a password: the file is its owner's alone."""
    allow_private: bool = False
    allow_addresses: tuple[str, ...] = ()


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine. `share` and `update_disk` are absolute paths; without `share` the bundle's own `share/` is used."""

    format: Literal[1] = 1
    architecture: Architecture
    boot: Boot = "kernel"
    backend: BackendChoice = "auto"
    accelerator: AcceleratorChoice = "auto"
    cpus: Annotated[int, Meta(ge=1, le=MAX_CPUS)] = 2
    memory_bytes: Annotated[int, Meta(ge=MIN_MEMORY_BYTES, le=MAX_MEMORY_BYTES)] = 2 << 30
    network: Literal["none", "nat"] = "none"
    session_bus: DiskBus = "virtio"
    share: str | None = None
    update_disk: str | None = None
    restart: RestartMode = "hung"
    egress: EgressSettings = EgressSettings()
    command_line: Annotated[str, Meta(pattern=_COMMAND_LINE)] = ""
    """Added behind the image's own."""
    cid: Annotated[int, Meta(ge=FIRST_CID, le=LAST_CID)] = FIRST_CID
    """The guest's vsock address: of use only where the host's own vsock is, which all machines of the host share."""


def parse_settings(data: bytes, *, source: str) -> Settings:
    """The settings in `data`. Raises `Trouble` (`bad_settings`)."""
    try:
        settings = msgspec.json.decode(data, type=Settings)
    except UNDECODABLE as error:
        _refuse(source, _worded(str(error)))
    for name in ("share", "update_disk"):
        path = getattr(settings, name)
        if path is not None and (not Path(path).is_absolute() or "\0" in path):
            _refuse(source, f"{name} is {path!r}, which is no absolute path")
    return settings


def compose_settings(settings: Settings) -> bytes:
    """The file, for people to read."""
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"


def _worded(problem: str) -> str:
    unknown = _UNKNOWN.match(problem)
    if not unknown:
        return problem
    near = difflib.get_close_matches(unknown[1], Settings.__struct_fields__, n=1, cutoff=0.5)
    return f"{problem}; did you mean {near[0]!r}?" if near else problem


def _refuse(source: str, what: str) -> NoReturn:
    raise Trouble("bad_settings", f"{source} cannot be used: {what}", remedy="mend that line; see cowork-vm(1), BUNDLE")
