"""Exceptions of handlers → the error that travels. The one place where an unknown one becomes `INTERNAL`.

An unknown exception is never shown to the host: it gets an incident id, and the log has the traceback under it.
A group that holds a single exception (trio's nurseries make them) stands for that one.
"""

from __future__ import annotations

import logging
import secrets
import sys

from coworkd.model.errors import CoworkError, InternalError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # type: ignore[import-not-found,unused-ignore]

_log = logging.getLogger("coworkd.rpc")


def as_fault(error: BaseException, *, method: str, link: str) -> CoworkError:
    """Return `error` if it is ours, else an `InternalError` with `details.incident`; the log tells about the latter."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CoworkError):
        if isinstance(error, InternalError) and "incident" not in error.details:
            return _incident(error, method, link, error.message, error.details)
        return error
    return _incident(error, method, link, f"{method} failed by a fault of coworkd's", {})


def _incident(error: BaseException, method: str, link: str, message: str, details: dict[str, object]) -> CoworkError:
    incident = secrets.token_hex(4)
    _log.error(
        "%s failed, incident %s", method, incident, exc_info=error, extra={"fields": {"link": link, "method": method}}
    )
    kept = {key: value for key, value in details.items() if key != "incident"}
    return InternalError(f"{message} (incident {incident}: `coworkctl logs` has it)", incident=incident, **kept)
