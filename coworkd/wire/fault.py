"""`CoworkError` ↔ the error map `{code, message, details}`.

Rules
- `code` is one of gRPC's canonical names; one that is not known here comes back as `UNKNOWN`, its name kept in
  `details.code`.
- `message` is for people, `details` for programs; a value that MessagePack cannot carry travels as its text.
- A class is found by its code; `StartFailed` by its `stage`.

Source: gRPC `statuscodes.md` for the names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coworkd.model import errors
from coworkd.model.errors import START_STAGES, Code, CoworkError

MAX_MESSAGE_CHARACTERS = 4096
_MAX_DEPTH = 6
_MAX_ENTRIES = 256
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

_CLASSES: dict[Code, type[CoworkError]] = {
    each.code: each
    for each in (
        errors.InvalidParams,
        errors.NotFound,
        errors.AlreadyExists,
        errors.InvalidState,
        errors.PolicyDenied,
        errors.Unauthenticated,
        errors.LimitExceeded,
        errors.OutOfRange,
        errors.DeadlineExceeded,
        errors.Unimplemented,
        errors.Unavailable,
        errors.InternalError,
    )
}


class RemoteFault(CoworkError):
    """An error whose code has no class of its own here; `remote_code` is the canonical code it came with."""

    def __init__(self, remote_code: Code, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.remote_code = remote_code


def code_of(error: CoworkError) -> Code:
    """The code that travels for `error`."""
    return error.remote_code if isinstance(error, RemoteFault) else error.code


def compose_fault(error: CoworkError) -> dict[str, Any]:
    """Return the map that travels; always encodable, its message at most `MAX_MESSAGE_CHARACTERS`."""
    return {
        "code": code_of(error).value,
        "message": _text(error.message)[:MAX_MESSAGE_CHARACTERS],
        "details": {_text(str(key)): encodable(value) for key, value in error.details.items() if value is not None},
    }


def parse_fault(fault: Mapping[str, Any]) -> CoworkError:
    """Return the error a map stands for. Never raises: what is missing or odd becomes `UNKNOWN` with what there was."""
    raw_code, raw_message, raw_details = fault.get("code"), fault.get("message"), fault.get("details")
    message = raw_message if isinstance(raw_message, str) else f"an error without a message: {dict(fault)!r}"[:400]
    details: dict[str, Any] = (
        {key: value for key, value in raw_details.items() if isinstance(key, str) and key not in ("message", "self")}
        if isinstance(raw_details, dict)
        else {}
    )
    try:
        code = Code(raw_code)
    except ValueError:
        details.setdefault("code", raw_code)
        code = Code.UNKNOWN
    if code is Code.FAILED_PRECONDITION and details.get("stage") in START_STAGES:
        return errors.StartFailed(message, **details)
    found = _CLASSES.get(code)
    if found is not None:
        return found(message, **details)
    details.pop("remote_code", None)
    return RemoteFault(code, message, **details)


def encodable(value: Any, depth: int = 0) -> Any:
    """Return `value` as MessagePack can carry it: what it cannot, and what is too deep or too long, as text or cut."""
    if value is None or isinstance(value, bool | bytes):
        return value
    if isinstance(value, int):
        return int(value) if _INT_MIN <= value <= _INT_MAX else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _text(value)
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        pairs = list(value.items())[:_MAX_ENTRIES]
        return {_text(str(key)): encodable(each, depth + 1) for key, each in pairs}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [encodable(each, depth + 1) for each in list(value)[:_MAX_ENTRIES]]
    return _text(str(value))


def _text(value: str) -> str:
    """Plain text without what UTF-8 cannot carry (lone surrogates from file names)."""
    return str(value)[:MAX_MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
