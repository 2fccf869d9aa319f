"""What the launcher refuses, as errors of ours: by the stage and errno it tells."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

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


def raise_worker_refusal(refused: Refused) -> NoReturn:
    """Of a worker. Raises `InvalidState` for a session that is not open, else `Unavailable`."""
    if refused.stage == "session":
        raise InvalidState(refused.message, stage=refused.stage, errno=refused.errno)
    raise Unavailable(f"a worker could not be had: {refused.message}", stage=refused.stage, errno=refused.errno)
