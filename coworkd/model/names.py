"""Names and paths, parsed once at the edge; past it they are trusted.

Rules: a session name is `[a-z][a-z0-9-]{0,31}` and never a name the system uses; a uid is at least `MIN_UID`;
three kinds of path never mix: what the host means, what the guest's kernel sees, what a sandbox sees.
"""

from __future__ import annotations

import re
from typing import NewType

from coworkd.model.errors import InvalidParams

SessionName = NewType("SessionName", str)
FolderName = NewType("FolderName", str)
ProcessId = NewType("ProcessId", str)
HostPath = NewType("HostPath", str)
"""A path as the host names it; never opened as it stands."""
GuestPath = NewType("GuestPath", bytes)
"""A path in the guest's own mount namespace."""
SandboxPath = NewType("SandboxPath", bytes)
"""A path as the command sees it."""


class OsBytes(bytes):
    """An argument, a path: bytes to the kernel. On the wire it is text where it is UTF-8, else bin."""

    __slots__ = ()

    @classmethod
    def from_wire(cls, value: object) -> OsBytes:
        """Accept str or bytes; anything else is a `TypeError` worded as msgspec words its own."""
        if isinstance(value, str):
            return cls(value.encode())
        if isinstance(value, bytes):
            return cls(value)
        raise TypeError(f"Expected `str | bytes`, got `{type(value).__name__}`")

    def to_wire(self) -> str | bytes:
        try:
            return self.decode()
        except UnicodeDecodeError:
            return bytes(self)


RESERVED_NAMES = frozenset(
    [
        "root",
        "daemon",
        "bin",
        "sys",
        "sync",
        "games",
        "man",
        "lp",
        "mail",
        "news",
        "uucp",
        "proxy",
        "www-data",
        "backup",
        "list",
        "irc",
        "gnats",
        "nobody",
        "nogroup",
        "systemd-network",
        "systemd-resolve",
        "systemd-timesync",
        "systemd-journal",
        "messagebus",
        "sshd",
        "syslog",
        "tss",
        "uuidd",
        "tcpdump",
        "landscape",
        "pollinate",
        "lxd",
        "adm",
        "tty",
        "disk",
        "sudo",
        "wheel",
        "users",
        "staff",
        "shadow",
        "utmp",
        "video",
        "audio",
        "input",
        "kvm",
        "render",
        "sgx",
        "coworkd",
        "coworkd-launcher",
        "coworkd-egress",
        "coworkd-reserve",
        "admin",
        "administrator",
    ]
)

_SESSION_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9._ -]{0,63}\Z")
_PROCESS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def parse_session_name(text: str) -> SessionName:
    """Return `text` as a session name, or raise `InvalidParams`; reserved names of the system are refused here."""
    if not _SESSION_NAME.match(text):
        raise InvalidParams(
            f"session name {text!r} is not usable: it needs 1 to 32 characters of a-z, 0-9 and '-', a letter first",
            key="session",
        )
    if text in RESERVED_NAMES:
        raise InvalidParams(f"session name {text!r} belongs to the system; choose another", key="session")
    return SessionName(text)


def parse_folder_name(text: str) -> FolderName:
    """Return `text` as the name of a folder below `mnt/`, or raise `InvalidParams`."""
    if not _FOLDER_NAME.match(text) or text in (".", ".."):
        raise InvalidParams(
            f"folder name {text!r} is not usable: one path component of letters, digits, '.', '_', '-' and spaces",
            key="name",
        )
    return FolderName(text)


def parse_process_id(text: str) -> ProcessId:
    """Return `text` as a process id, or raise `InvalidParams`."""
    if not _PROCESS_ID.match(text):
        raise InvalidParams(
            f"process id {text!r} is not usable: 1 to 64 characters of letters, digits, '.', '_' and '-'", key="id"
        )
    return ProcessId(text)
