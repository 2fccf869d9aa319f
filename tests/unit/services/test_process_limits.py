"""`services.process_limits`: what there is room for."""

from __future__ import annotations

import pytest

from coworkd.services.process_limits import ProcessLimits, fit_descriptors


def test_fit_descriptors_keeps_what_there_is_room_for() -> None:
    assert fit_descriptors(ProcessLimits(), 20_000) == ProcessLimits()


@pytest.mark.parametrize("nofile", [280, 1024, 4096])
def test_fit_descriptors_never_promises_more_than_there_are(nofile: int) -> None:
    limits = fit_descriptors(ProcessLimits(), nofile)
    assert limits.running * 10 + limits.finished.keep_count * 4 <= nofile - 240
    assert min(limits.running, limits.finished.keep_count) >= 1
