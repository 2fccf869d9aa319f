from __future__ import annotations

import pytest

from coworkd.model.errors import Code, CoworkError
from coworkd.wire.limits import (
    FROM_GUEST,
    FROM_HOST,
    LocalLimitError,
    LocalProtocolError,
    RemoteLimitError,
    RemoteProtocolError,
)


def test_limits_are_those_of_the_protocol_page() -> None:
    assert (FROM_HOST.fresh_frame_bytes, FROM_HOST.frame_bytes) == (16 * 1024, 1024 * 1024)
    assert FROM_GUEST.fresh_frame_bytes == FROM_GUEST.frame_bytes == 4 * 1024 * 1024
    assert (FROM_HOST.depth, FROM_HOST.items) == (32, 4096)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LocalProtocolError, Code.INTERNAL),
        (LocalLimitError, Code.RESOURCE_EXHAUSTED),
        (RemoteProtocolError, Code.INVALID_ARGUMENT),
        (RemoteLimitError, Code.RESOURCE_EXHAUSTED),
    ],
)
def test_protocol_errors_tell_whose_fault_and_which_rule(kind: type[CoworkError], code: Code) -> None:
    error = kind("why", rule="depth", limit=3)
    assert (error.code, error.details) == (code, {"rule": "depth", "limit": 3})
