"""Why a folder could not be mounted, in words, and whose fault that is. Pure.

`InvalidState`: what was named is not there, or not what a folder can be. `Unavailable`: it is of a share that does not answer now; the
same call may work later. Anything else stays `MountFailed`, which is a fault of ours. All carry `folder`, `path`, `errno`.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from coworkd.model.errors import CoworkError, InvalidState, MountFailed, Unavailable
from coworkd.model.session import FolderGrant

_CALLERS = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not there: something on the way is no directory",
    errno.ELOOP: "is, or leads through, a symbolic link; name the directory itself",
    errno.EXDEV: "leads out of the share",
    errno.EINVAL: "is neither a directory nor a plain file",
    errno.EACCES: "cannot be looked into: permission denied",
    errno.ENAMETOOLONG: "has a name that is too long",
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
    number = error.details.get("errno")
    details: dict[str, Any] = {**error.details, "folder": grant.name, "path": path}
    if not isinstance(error, (MountFailed, InvalidState)) or not isinstance(number, int):
        return type(error)(f"folder {grant.name!r}: {error.message}", **details)
    about = f"folder {grant.name!r}: {path}"
    if isinstance(error, InvalidState) or number in _CALLERS:
        return InvalidState(f"{about} {_CALLERS.get(number) or _unknown(number, error.message)}", **details)
    if number in _SHARES:
        return Unavailable(f"{about} {_SHARES[number]}", **details)
    return MountFailed(f"{about} {_unknown(number, error.message)}", **details)


def _unknown(number: int, said: str) -> str:
    meaning = os.strerror(number)
    return f"cannot be mounted: {said}" if meaning.lower() in said.lower() else f"cannot be mounted: {meaning}: {said}"
