"""What a worker of `file.*` says went wrong, as the error that the caller gets. Pure."""

from __future__ import annotations

import errno
import os

from coworkd.model.errors import (
    AlreadyExists,
    CoworkError,
    InternalError,
    InvalidParams,
    InvalidState,
    LimitExceeded,
    NotFound,
    PolicyDenied,
    Unavailable,
)
from coworkd.model.files import FileFault, Moved

_KINDS: dict[int, tuple[type[CoworkError], str]] = {
    errno.ENOENT: (NotFound, ""),
    errno.EEXIST: (AlreadyExists, "; ask to overwrite it, or choose another name"),
    errno.EACCES: (PolicyDenied, ": the session itself has no right to do this"),
    errno.EPERM: (PolicyDenied, ": the folder's mode or the file's owner does not allow it"),
    errno.EROFS: (PolicyDenied, ": it lies in what the session may only read"),
    errno.ENAMETOOLONG: (InvalidParams, ""),
    errno.EINVAL: (InvalidParams, ""),
    errno.ENOSPC: (LimitExceeded, ": remove something, or let the disk grow"),
    errno.EDQUOT: (LimitExceeded, ": the session has used up its quota"),
    errno.EFBIG: (LimitExceeded, ""),
    errno.E2BIG: (LimitExceeded, ""),
    errno.EMFILE: (LimitExceeded, ""),
    errno.ENFILE: (LimitExceeded, ""),
    errno.ENOMEM: (LimitExceeded, ""),
    errno.EISDIR: (InvalidState, ""),
    errno.ENOTDIR: (InvalidState, ""),
    errno.ENOTEMPTY: (InvalidState, ": remove it recursively, or empty it first"),
    errno.ELOOP: (
        InvalidState,
        ": symbolic links that lead nowhere, or a magic link of /proc, which is never followed",
    ),
    errno.EXDEV: (InvalidState, ": the two lie on different file systems or folders, between which only copying works"),
    errno.EBUSY: (InvalidState, ": something is mounted there, or it is in use"),
    errno.ETXTBSY: (InvalidState, ": a command is running it"),
}
_UNAVAILABLE = frozenset(
    [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV, errno.ENXIO]
)


def compose_error(fault: FileFault, session: str) -> CoworkError:
    """The error of a call or of a stream. `details` has those of `path` (as the session sees it), `errno`, `stage`, `entries` there are."""
    path = None if fault.path is None else fault.path.decode("utf-8", "replace")
    details = {"session": session, "path": path, "errno": fault.errno, "stage": fault.stage}
    if fault.entries:
        details["entries"] = fault.entries
    details = {name: value for name, value in details.items() if value is not None}
    kind, remedy = _kind_of(fault)
    return kind(f"{path or 'the file'}: {fault.message}{remedy}", **details)


def _kind_of(fault: FileFault) -> tuple[type[CoworkError], str]:
    if fault.stage == "worker":
        return InternalError, ""
    if fault.stage == "transfers":
        return LimitExceeded, "; wait for one of them"
    if fault.stage == "archive":
        return InvalidParams, ""
    if fault.errno is None:
        return InvalidState, ""
    if fault.errno in _UNAVAILABLE:
        return Unavailable, ": what the folder leads to does not answer as it should"
    found = _KINDS.get(fault.errno)
    if found is None:
        return InvalidState, f" ({errno.errorcode.get(fault.errno, fault.errno)})"
    # The worker's own words for an errno say more than ours could add.
    return found if fault.message == os.strerror(fault.errno) else (found[0], "")


def left_out(moved: Moved, session: str) -> CoworkError | None:
    """Of a download that is whole but for some entries."""
    if not moved.omitted:
        return None
    named = tuple(told.decode("utf-8", "replace") for told in moved.left_out)
    some = (
        named[0]
        if moved.omitted == 1 and named
        else f"{moved.omitted} entries, the first {named[0]}"
        if named
        else str(moved.omitted)
    )
    return InvalidState(
        f"the archive came whole, but this was left out of it or is not as it was: {some}",
        session=session,
        stage="left_out",
        omitted=moved.omitted,
        left_out=named,
    )
