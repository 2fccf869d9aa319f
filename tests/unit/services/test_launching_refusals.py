"""Which error a refusal becomes."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from coworkd.model.errors import CoworkError, InvalidState, MountFailed, SandboxSetupFailed, StartFailed, Unavailable
from coworkd.model.launch import Done, Refused, SocketMade, Spawned
from coworkd.services.launching_refusals import (
    raise_folder_refusal,
    raise_refusal,
    raise_worker_refusal,
    without_descriptors,
)


@pytest.mark.parametrize(
    ("raising", "stage", "number", "kind"),
    [
        (raise_refusal, "session", errno.ESRCH, InvalidState),
        (raise_refusal, "policy_denied", errno.EPERM, StartFailed),
        (raise_refusal, "resources", errno.EAGAIN, StartFailed),
        (raise_refusal, "bind /srv", errno.ENOENT, InvalidState),
        (raise_refusal, "bind /srv", errno.EIO, MountFailed),
        (raise_refusal, "tree", errno.ETIMEDOUT, MountFailed),
        (raise_refusal, "uid", errno.EPERM, SandboxSetupFailed),
        (raise_folder_refusal, "session", errno.ESRCH, InvalidState),
        (raise_folder_refusal, "probe", errno.ESTALE, MountFailed),
        (raise_folder_refusal, "errand", None, MountFailed),
        (raise_worker_refusal, "session", errno.ESRCH, InvalidState),
        (raise_worker_refusal, "worker", errno.EMFILE, Unavailable),
    ],
)
def test_a_refusal_is_an_error_of_ours(
    raising: Callable[[Refused], None], stage: str, number: int | None, kind: type[CoworkError]
) -> None:
    with pytest.raises(kind) as caught:
        raising(Refused(id=1, stage=stage, errno=number, message="why"))
    assert caught.value.details["errno"] == number
    assert stage.startswith("bind") or "why" in caught.value.message


def test_a_command_whose_descriptors_found_no_room_is_there_without_them() -> None:
    spawned = Spawned(id=7, process="p", monitor_pid=2, fds=("stdout", "stderr"), at=1.0)
    told = without_descriptors(spawned)
    assert isinstance(told, Spawned)
    assert (told.id, told.process, told.fds) == (7, "p", ())


def test_what_is_nothing_without_its_descriptors_is_refused() -> None:
    told = without_descriptors(SocketMade(id=7))
    assert isinstance(told, Refused)
    assert (told.id, told.stage, told.errno) == (7, "resources", errno.EMFILE)
    assert without_descriptors(Done(id=8)) == Done(id=8)
