from __future__ import annotations

import errno

import pytest

from coworkd.model.errors import CoworkError, DiskFailed, InvalidState, MountFailed, PolicyDenied, Unavailable
from coworkd.services.folders_words import describe_failure
from tests.unit.services.session_house import folder


@pytest.mark.parametrize(
    ("number", "stage", "kind", "said"),
    [
        (errno.ENOENT, "source", InvalidState, "/srv/src is not there"),
        (errno.ELOOP, "source", InvalidState, "symbolic link"),
        (errno.EXDEV, "source", InvalidState, "leads out"),
        (errno.ENOTDIR, "source", InvalidState, "/srv/src: as it said"),
        (errno.EINVAL, "source", InvalidState, "as it said"),
        (errno.ETIMEDOUT, "probe", Unavailable, "did not answer in time"),
        (errno.ETIMEDOUT, "source", Unavailable, "did not answer in time"),
        (errno.ESTALE, "probe", Unavailable, "stale file handle"),
        (errno.ENOTCONN, "source", Unavailable, "lost its share"),
        (errno.EPERM, "source", PolicyDenied, "/srv/src: as it said"),
        (errno.EPERM, "place", MountFailed, "as it said"),
        (errno.ENOENT, "overlay", MountFailed, "as it said"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_whose_fault_it_is(
    number: int, stage: str, kind: type[CoworkError], said: str
) -> None:
    told = describe_failure(folder("src"), "/srv/src", MountFailed("as it said", errno=number, stage=stage))
    assert type(told) is kind
    assert said in told.message
    assert told.message.startswith("folder 'src'")
    assert (told.details["folder"], told.details["path"], told.details["errno"]) == ("src", "/srv/src", number)


@pytest.mark.parametrize("error", [DiskFailed("full", errno=28), PolicyDenied("no", key="folders.mode")])
def test_another_failure_stays_what_it_is(error: CoworkError) -> None:
    told = describe_failure(folder("src"), "/srv/src", error)
    assert type(told) is type(error)
    assert error.message in told.message
    assert error.details.items() <= told.details.items()
