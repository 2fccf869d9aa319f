"""Why a folder could not be mounted, in words, and whose fault that is. Pure.

`InvalidState`: what was named is not there, or not what a folder can be. `Unavailable`: it is of a share that does not answer now; the
same call may work later. `PolicyDenied`: it is where no folder is. Anything else stays what it is, such as `MountFailed`, a fault of
ours. All carry `folder`, `path`, `errno`.
"""

from __future__ import annotations

import errno
from typing import Any

from coworkd.model.errors import CoworkError, InvalidState, MountFailed, PolicyDenied, Unavailable
from coworkd.model.session import FolderGrant

_SOURCES = {
    errno.ENOENT: "is not there",
    errno.ELOOP: "is, or leads through, a symbolic link; name the directory itself",
    errno.EXDEV: "leads out of where folders may be",
}
_SHARES = {
    errno.ETIMEDOUT: "did not answer in time; the share hangs",
    errno.ESTALE: "is not there any more: its share has lost it (stale file handle); share it again",
    errno.ENOTCONN: "has lost its share (not connected)",
    errno.ECONNABORTED: "has lost its share (connection aborted)",
    errno.EHOSTDOWN: "has lost its share (host is down)",
    errno.ENODEV: "has lost its share (no such device)",
    errno.EIO: "cannot be read (input/output error)",
}


def describe_failure(grant: FolderGrant, path: str, error: CoworkError) -> CoworkError:
    """The error as it is told, of what mounting `grant` raised."""
    number, stage = error.details.get("errno"), error.details.get("stage")
    details: dict[str, Any] = {**error.details, "folder": grant.name, "path": path}
    name = f"folder {grant.name!r}"
    if isinstance(error, MountFailed):
        if number in _SHARES:
            return Unavailable(f"{name}: {path} {_SHARES[number]}", **details)
        if (stage, number) == ("source", errno.EPERM):
            return PolicyDenied(f"{name}: {path}: {error.message}", **{**details, "key": "folders.source"})
        if stage == "source":
            said = _SOURCES.get(number) if isinstance(number, int) else None
            return InvalidState(f"{name}: {path} {said}" if said else f"{name}: {path}: {error.message}", **details)
    return type(error)(f"{name} of {path}: {error.message}", **details)
