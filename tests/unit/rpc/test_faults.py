from __future__ import annotations

import logging
import sys

import pytest

from coworkd.model.errors import InternalError, MountFailed, NotFound
from coworkd.rpc.faults import as_fault

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup  # type: ignore[import-not-found,unused-ignore]


def test_our_errors_pass_as_they_are() -> None:
    error = NotFound("no such session", key="session")
    assert as_fault(error, method="m", link="l") is error


def test_unknown_errors_get_an_incident_that_the_log_has(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="coworkd.rpc"):
        fault = as_fault(ValueError("secret detail"), method="process.run", link="unix:1")
    assert type(fault) is InternalError
    assert "secret" not in fault.message
    assert fault.details["incident"] in fault.message
    assert fault.details["incident"] in caplog.text
    assert "secret detail" in caplog.text


def test_our_own_faults_get_an_incident_too_and_keep_their_details() -> None:
    fault = as_fault(MountFailed("cannot mount", path="/a", errno=5), method="m", link="l")
    assert (fault.details["path"], fault.details["errno"]) == ("/a", 5)
    assert fault.message.startswith("cannot mount (incident ")
    assert as_fault(fault, method="m", link="l") is fault


def test_a_group_of_one_stands_for_that_one() -> None:
    error = NotFound("x")
    assert as_fault(ExceptionGroup("outer", [ExceptionGroup("inner", [error])]), method="m", link="l") is error


def test_a_group_of_two_is_unknown() -> None:
    assert type(as_fault(ExceptionGroup("g", [NotFound("x"), NotFound("y")]), method="m", link="l")) is InternalError
