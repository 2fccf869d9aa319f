"""What the launcher refuses, as errors of ours: by the stage and errno it tells. And what is left of its words without descriptors."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

from msgspec import structs

from coworkd.model import launch
from coworkd.model.errors import InvalidState, MountFailed, SandboxSetupFailed, StartFailed, Unavailable
from coworkd.model.launch import Refused


def raise_refusal(refused: Refused) -> NoReturn:
    """Of sessions and commands. Raises `InvalidState`, `StartFailed`, `MountFailed` or `SandboxSetupFailed`."""
    details = {"stage": refused.stage, "errno": refused.errno}
    if refused.stage == "session":
        raise InvalidState(refused.message, **details)
    if refused.stage in ("policy_denied", "resources"):
        raise StartFailed(refused.message, **details)
    if refused.stage.startswith("bind ") and refused.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        path = refused.stage.removeprefix("bind ")
        raise InvalidState(
            f"{path} cannot be mounted: {os.strerror(refused.errno)}; a folder is a directory that is there, named without"
            " symbolic links",
            **{**details, "path": path},
        )
    if refused.stage.startswith("bind ") or refused.errno == errno.ETIMEDOUT:
        raise MountFailed(f"{refused.message}", **{**details, "path": refused.stage.removeprefix("bind ")})
    raise SandboxSetupFailed(refused.message, **details)


def raise_folder_refusal(refused: Refused) -> NoReturn:
    """Of a folder. Raises `InvalidState` for a session that is not open, else `MountFailed`."""
    if refused.stage == "session":
        raise InvalidState(refused.message, stage=refused.stage, errno=refused.errno)
    raise MountFailed(refused.message, stage=refused.stage, errno=refused.errno)


def raise_group_refusal(refused: Refused) -> NoReturn:
    """Of a cgroup. Raises `InvalidState` for what is not there, else `Unavailable`."""
    details = {"stage": refused.stage, "errno": refused.errno}
    if refused.stage in ("session", "process") or refused.errno == errno.EOPNOTSUPP:
        raise InvalidState(refused.message, **details)
    raise Unavailable(f"the kernel did not do it: {refused.message}", **details)


def raise_worker_refusal(refused: Refused) -> NoReturn:
    """Of a worker. Raises `InvalidState` for a session that is not open, else `Unavailable`."""
    if refused.stage == "session":
        raise InvalidState(refused.message, stage=refused.stage, errno=refused.errno)
    raise Unavailable(f"a worker could not be had: {refused.message}", stage=refused.stage, errno=refused.errno)


def without_descriptors(reply: launch.Reply) -> launch.Reply:
    """What a word means of whose descriptors none reached us, because we had no number left for them.

    A command that was spawned is there, and whoever asked has to end it; one that is handed over lives on without its output. All else
    is as if it had been refused: what it made ends with its descriptors, or is found standing by who asks again.
    """
    if isinstance(reply, launch.Spawned):
        return structs.replace(reply, fds=())
    if isinstance(reply, launch.Adopted):
        return structs.replace(reply, spawned=structs.replace(reply.spawned, fds=()))
    if isinstance(
        reply, (launch.Opened, launch.SocketMade, launch.WorkerStarted, launch.FolderMounted, launch.PressureOpened)
    ):
        return Refused(
            id=reply.id,
            stage="resources",
            errno=errno.EMFILE,
            message="coworkd has no descriptor left: end some commands or links, or raise its limit (LimitNOFILE=), and try again",
        )
    return reply
