"""The words between coworkd and the worker that mounts the host's share (`workers.share`): one request, one answer."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ShareKind = Literal["virtiofs", "9p"]


class MountShare(Struct, frozen=True, kw_only=True, tag="mount_share"):
    """Mount the share `tag` on `mount_point` by the first of `kinds` that can. Answered by `ShareMounted` or `ShareAbsent`."""

    id: int
    kinds: tuple[ShareKind, ...]
    tag: str
    mount_point: bytes


class ShareMounted(Struct, frozen=True, kw_only=True, tag="share_mounted"):
    """`already`: it was mounted before, by a coworkd before this one."""

    id: int
    kind: ShareKind
    already: bool


class ShareAbsent(Struct, frozen=True, kw_only=True, tag="share_absent"):
    """It cannot be mounted (now)."""

    id: int
    reason: str


Request = MountShare
Answer = ShareMounted | ShareAbsent
