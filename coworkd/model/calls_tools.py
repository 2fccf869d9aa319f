"""The shapes of `tool.*`: agent CLIs and other tools that are installed from the host's share, beside one another by version."""

from __future__ import annotations

from msgspec import Struct

from coworkd.model.call_shapes import Answer, Mutating
from coworkd.model.names import OsBytes


class ToolInstall(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A version that is there already, with the same digest, is only switched to; `source` is not looked at then."""

    name: str
    version: str
    sha256: str
    """Of the source's bytes, hex."""
    source: OsBytes | None = None
    """A file below the share: the tool itself, or a tar or tar.gz of it. Without a share, a path of the guest."""
    commands: dict[str, str] | None = None
    """Command → path within the archive. None: one named as the tool, in `bin/` or at the top."""
    switch: bool = True
    """Whether it is the version in use from now on."""
    timeout_s: float | None = None


class ToolInfo(Struct, frozen=True, kw_only=True):
    """One version of a tool. `current` is whether commands that start now get it."""

    name: str
    version: str
    sha256: str
    size_bytes: int
    installed_at: float
    commands: tuple[str, ...]
    current: bool = False


class ToolInstalled(Answer, frozen=True, kw_only=True):
    tool: ToolInfo
    changed: bool
    """False: it was there, and in use."""
    pruned: tuple[str, ...] = ()
    """Versions that went to keep no more than the configured number."""


class ToolList(Answer, frozen=True, kw_only=True):
    tools: tuple[ToolInfo, ...]


class ToolRemove(Mutating, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    version: str | None = None
    """None: all versions."""


class ToolRemoved(Answer, frozen=True, kw_only=True):
    removed: tuple[str, ...]
    """Versions."""
