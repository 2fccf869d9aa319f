"""One tree of errors.

Every error that leaves a service is a `CoworkError`: a gRPC canonical code name, a sentence that says what
happened and what to do, and details a program can read. `system/` raises `OSError`; services translate with
`raise … from`; `wire.fault` is the one place that turns a `CoworkError` into bytes and back.

Source of the code names: gRPC `statuscodes.md`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import msgspec

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes of somebody else may raise; msgspec lets a text that is no UTF-8, and too deep a nesting, through as Python's own."""


class Code(str, Enum):
    """gRPC's canonical code names, as they travel."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class CoworkError(Exception):
    """The root. `details` may hold `stage`, `errno`, `path`, `key`, `incident` and values a caller can act on."""

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidParams(CoworkError):
    """The caller sent something that cannot be meant."""

    code = Code.INVALID_ARGUMENT


class NotFound(CoworkError):
    """What the caller named does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(CoworkError):
    """What the caller wants to make is there already."""

    code = Code.ALREADY_EXISTS


class InvalidState(CoworkError):
    """The thing exists, but not in a state in which this can be done."""

    code = Code.FAILED_PRECONDITION


class PolicyDenied(CoworkError):
    """A policy refuses it. The message names the rule."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(CoworkError):
    """`hello` has not been said, or its token is wrong."""

    code = Code.UNAUTHENTICATED


class LimitExceeded(CoworkError):
    """A bound was met: a frame, a queue, a count."""

    code = Code.RESOURCE_EXHAUSTED


class OutOfRange(CoworkError):
    """An offset lies before what is kept, or behind what exists."""

    code = Code.OUT_OF_RANGE


class DeadlineExceeded(CoworkError):
    """The caller's own deadline passed. What was asked for may still happen."""

    code = Code.DEADLINE_EXCEEDED


class Unimplemented(CoworkError):
    """No such method, or this build cannot do it."""

    code = Code.UNIMPLEMENTED


class Unavailable(CoworkError):
    """A part that is needed is not there now; the same call may work later."""

    code = Code.UNAVAILABLE


class InternalError(CoworkError):
    """A fault of ours. `details.incident` is the id under which the log has the traceback."""

    code = Code.INTERNAL


class SandboxSetupFailed(InternalError):
    """The sandbox could not be built; `details.stage` says at which step."""


class StartFailed(CoworkError):
    """The command could not be started. `details.stage` is one of `START_STAGES`; `details.errno` where there is one."""

    code = Code.FAILED_PRECONDITION


class MountFailed(InternalError):
    """A mount could not be made; `details.path` and `details.errno` say which and why."""


class DiskFailed(InternalError):
    """The state directory or session disk refused a read or a write."""


START_STAGES = ("not_found", "not_executable", "bad_cwd", "too_big", "sandbox_setup", "policy_denied", "resources")
"""The stages of `StartFailed`. coworkctl exits 127 for `not_found`, 126 for `not_executable`, 125 for the others."""
