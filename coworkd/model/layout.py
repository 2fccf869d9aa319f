"""What the guest's own root looks like, found once at start, so that everything after it is pure."""

from __future__ import annotations

from msgspec import Struct


class GuestLayout(Struct, frozen=True, kw_only=True):
    """Facts about the guest's root file system."""

    links: tuple[tuple[bytes, bytes], ...]
    """Top-level links of a merged /usr: (`/bin`, `usr/bin`) …"""
    directories: tuple[bytes, ...]
    """Top-level directories bound read-only: `/usr`, `/opt`, and `/bin` … where /usr is not merged."""
    etc_directories: tuple[bytes, ...]
    """Directories of /etc that a sandbox sees: certificates, alternatives, language runtimes."""
    etc_files: tuple[bytes, ...]
    """Files of /etc that are copied into a sandbox's /etc."""
    cpu_files: tuple[tuple[bytes, bytes], ...]
    """/sys/devices/system/cpu file → content."""
    proc_masked: tuple[bytes, ...]
    """Files of /proc that exist here and are hidden."""
    proc_emptied: tuple[bytes, ...]
    """Directories of /proc that exist here and are hidden."""
    proc_read_only: tuple[bytes, ...]
    """Parts of /proc that exist here and are made read-only."""
    python: bytes | None
    """A Python below /usr for the shim; None where there is none."""
    java_net_properties: tuple[tuple[bytes, bytes], ...] = ()
    """Each installed Java's `net.properties`, without symbolic links → content."""


class BwrapFeatures(Struct, frozen=True, kw_only=True):
    """What the installed bubblewrap can do, from `--help`, never from its version."""

    path: str
    version: str
    options: frozenset[str]

    def has(self, option: str) -> bool:
        return option in self.options
