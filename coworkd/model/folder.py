"""The words between coworkd and the file system that guards a folder (`folderfs`): one SOCK_SEQPACKET message each.

A guarded folder is served by a program of its own, started by the launcher, which sees every look-up, write and delete before it happens.
It knows which names the session has made itself; what becomes of a delete of any other is its `DeleteRule`.

Rules
- Paths are relative to the folder, bytes, without a leading slash; `b""` is the folder itself.
- `Changed` is told after the change, in order, several at once; `number` grows by one with each message, and what found no room while
  nobody read is counted in `lost`, never left out in silence.
- Every `Asked` waits until its `Verdict`, its `Withdrawn` (who asked was interrupted or has died), or the file system's own end; at most
  as long as the last `Rule` said, and is refused then. The directory's lock is held by the kernel meanwhile.
- `pid` is the caller's (a thread's id) as the guest's first pid namespace sees it; 0 where the kernel did not say.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

DeleteRule = Literal["allow", "deny", "ask"]
MountedAs = Literal["bind", "idmapped", "guarded", "overlay"]
"""How a folder stands in the tree: bind and idmapped mounts are the kernel's own, `guarded` is served by `folderfs`."""
ChangeKind = Literal[
    "create", "write", "delete", "rename", "mkdir", "rmdir", "symlink", "link", "attributes", "truncate"
]


class FolderChange(Struct, frozen=True, kw_only=True, array_like=True):
    """One change that a session made."""

    change: ChangeKind
    path: bytes
    to: bytes = b""
    """Of `rename`: the new path; of `link`: what it is another name of."""
    size: int = -1
    """In bytes, after a write (told when the file is closed); -1 where it has no meaning."""
    pid: int = 0
    at: float = 0.0


class Changed(Struct, frozen=True, kw_only=True, tag="changed"):
    number: int
    changes: tuple[FolderChange, ...]
    lost: int = 0


class Asked(Struct, frozen=True, kw_only=True, tag="asked"):
    """Somebody wants to delete what the session has not made."""

    ask: int
    action: Literal["delete", "rmdir"]
    path: bytes
    pid: int
    at: float
    was: bytes = b""
    """What the session has renamed it from; empty where it was always called so."""


class Withdrawn(Struct, frozen=True, kw_only=True, tag="withdrawn"):
    ask: int


class Listed(Struct, frozen=True, kw_only=True, tag="listed"):
    """The answer of `ListBelow`: what lies there, depth first; `more` says that there is more than `limit`."""

    id: int
    paths: tuple[bytes, ...]
    more: bool


class Ruled(Struct, frozen=True, kw_only=True, tag="ruled"):
    """The answer of `Rule`: it holds for everything from here on."""

    id: int


class Rule(Struct, frozen=True, kw_only=True, tag="rule"):
    """From now on deletes are ruled like this; `allow` is the mode `rwd`. `ask_timeout_s` bounds every wait, listened to or not.

    What waits already is decided by it and withdrawn, or, where it asks, told again under the same number: who listens may be new.
    """

    id: int
    deletes: DeleteRule
    ask_timeout_s: float


class Verdict(Struct, frozen=True, kw_only=True, tag="verdict"):
    """Do what was asked for, or answer it with EPERM. An ask that is not known any more is passed over."""

    ask: int
    allow: bool


class ListBelow(Struct, frozen=True, kw_only=True, tag="list_below"):
    """What a recursive delete of `path` would take: for the list that a person is shown."""

    id: int
    path: bytes
    limit: int


FromFolder = Changed | Asked | Withdrawn | Listed | Ruled
ToFolder = Rule | Verdict | ListBelow
