"""The session disk's part of doctor."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.services.doctor_storage import StorageFacts, check_disk_tools, check_storage


class Machine:
    def __init__(self, missing: tuple[str, ...] = (), **facts: Any) -> None:
        values = {
            "kind": "disk",
            "state": "ok",
            "reason": None,
            "mark": 0,
            "project_quota": True,
            "reserve_missing": None,
        }
        self._facts = StorageFacts(**{**values, **facts})
        self._missing = missing

    def storage(self) -> StorageFacts | None:
        return self._facts

    def missing_tools(self) -> tuple[str, ...]:
        return self._missing


class NobodyRuns(Machine):
    def storage(self) -> StorageFacts | None:
        return None


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({}, "ok", "the kernel counts"),
        ({"project_quota": False}, "ok", "looks now and then"),
        ({"state": "absent", "reason": "two are blank"}, "failed", "two are blank"),
        ({"state": "degraded", "reason": "it is read-only"}, "failed", "read-only"),
        ({"mark": 95}, "degraded", "over 95 percent"),
        ({"reason": "it was repaired"}, "degraded", "repaired"),
        ({"reserve_missing": "there is no room for it"}, "degraded", "no reserve"),
    ],
)
def test_the_disk_is_judged_by_what_coworkd_knows(facts: dict[str, Any], state: str, said: str) -> None:
    found = check_storage(Machine(**facts))
    assert found.state == state
    assert said in found.detail
    assert bool(found.remedy) == (state != "ok")


def test_without_a_coworkd_there_is_nobody_to_ask() -> None:
    assert check_storage(NobodyRuns()).state == "ok"


def test_a_program_that_is_missing_is_named() -> None:
    assert check_disk_tools(Machine()).state == "ok"
    found = check_disk_tools(Machine(missing=("mke2fs", "blkid")))
    assert (found.state, "mke2fs, blkid" in found.detail) == ("degraded", True)
