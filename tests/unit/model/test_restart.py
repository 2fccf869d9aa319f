"""`model.restart`: what `hello` says of a restart is read as it was said, and an older guest says nothing."""

from __future__ import annotations

import pytest

from coworkd.model.calls import HelloAnswer
from coworkd.model.restart import Restarted
from coworkd.wire.convert import compose_answer, read_answer

RESTARTED = Restarted(
    at=1.0, took_s=0.5, running=3, ended=2, one_shots=1, sessions=2, approvals=4, lost=("a deadline",)
)


@pytest.mark.parametrize("restarted", [None, RESTARTED])
def test_hello_says_it(restarted: Restarted | None) -> None:
    hello = HelloAnswer(protocol=1, version="1", boot_id="b", features=(), stages=(), degraded={}, restarted=restarted)
    assert read_answer(compose_answer(hello), HelloAnswer) == hello


def test_a_guest_that_does_not_know_of_it_is_understood() -> None:
    said = {"protocol": 1, "version": "1", "boot_id": "b", "features": [], "stages": [], "degraded": {}}
    assert read_answer(said, HelloAnswer).restarted is None
