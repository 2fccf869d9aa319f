import errno
import os

import pytest

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
from coworkd.services.files_faults import compose_error, left_out


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.EEXIST, AlreadyExists),
        (errno.EACCES, PolicyDenied),
        (errno.EPERM, PolicyDenied),
        (errno.EROFS, PolicyDenied),
        (errno.ENOSPC, LimitExceeded),
        (errno.EDQUOT, LimitExceeded),
        (errno.EXDEV, InvalidState),
        (errno.ELOOP, InvalidState),
        (errno.ENOTEMPTY, InvalidState),
        (errno.ENAMETOOLONG, InvalidParams),
        (errno.ESTALE, Unavailable),
        (errno.EIO, Unavailable),
        (errno.EXFULL, InvalidState),
    ],
)
def test_each_errno_has_its_code_and_says_where(number: int, kind: type[CoworkError]) -> None:
    error = compose_error(FileFault(errno=number, message=os.strerror(number), path=b"/a\xff"), "work")
    assert type(error) is kind
    assert (error.details["errno"], error.details["path"], error.details["session"]) == (number, "/a\ufffd", "work")
    assert os.strerror(number) in error.message
    assert "entries" not in error.details


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("worker", InternalError), ("archive", InvalidParams), ("not_a_file", InvalidState), ("transfers", LimitExceeded)],
)
def test_each_stage_has_its_code(stage: str, kind: type[CoworkError]) -> None:
    error = compose_error(FileFault(errno=None, message="so it is", stage=stage, entries=3), "work")
    assert type(error) is kind
    assert (error.details["stage"], error.details["entries"]) == (stage, 3)


def test_the_workers_own_words_get_no_advice_of_ours() -> None:
    error = compose_error(FileFault(errno=errno.ENOSPC, message="5 bytes are to come, 3 are free", path=b"/a"), "work")
    assert error.message == "/a: 5 bytes are to come, 3 are free"


def test_what_was_left_out_is_named_and_counted() -> None:
    assert left_out(Moved(entries=1, size=1), "work") is None
    error = left_out(Moved(entries=1, size=1, omitted=20, left_out=(b"a: why", b"b: why")), "work")
    assert error is not None
    assert error.details["omitted"] == 20
    assert "20 entries, the first a: why" in error.message
