"""The words between coworkd and its `tool` worker, which brings a tool from the host's share to the session disk.

Rules
- One request, one answer of the same id. The worker writes below `incoming` and nowhere else; that directory is there, empty and root's.
- `source` is relative to `root`, and looked up without following a symbolic link and without leaving it.
- What was fetched is whole, of the digest that was asked for, and on the disk. After anything else `incoming` holds rubbish.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ToolRefusal = Literal["not_found", "not_a_file", "mismatch", "too_big", "bad_archive", "unreadable", "disk"]


class FetchTool(Struct, frozen=True, kw_only=True, tag="fetch_tool"):
    """Copy a file, or unpack an archive (tar, tar.gz)."""

    id: int
    root: bytes
    source: bytes
    incoming: bytes
    file_name: bytes
    """What a single file is called; it becomes executable."""
    sha256: str
    """Of the source's bytes as they lie in the share, lower-case hex."""
    limit_bytes: int
    """Of the source, and of what comes out of it."""
    limit_entries: int


class ToolFetched(Struct, frozen=True, kw_only=True, tag="tool_fetched"):
    id: int
    size_bytes: int
    entries: int
    executables: tuple[bytes, ...]
    """Plain files with an execute bit, relative to `incoming`; at most `EXECUTABLES_TOLD`, those nearest to the top first."""


class ToolRefused(Struct, frozen=True, kw_only=True, tag="tool_refused"):
    id: int
    why: ToolRefusal
    message: str
    errno: int | None = None


EXECUTABLES_TOLD = 512
ToolRequest = FetchTool
ToolAnswer = ToolFetched | ToolRefused
