"""`client.repeating`: what another coworkd than the one that was asked is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.client.methods import all_methods
from coworkd.client.repeating import compose_refusal, repeats, says_done, was_cut_off
from coworkd.model.errors import CoworkError, InvalidState, NotFound, Unavailable

METHODS = all_methods()


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if not method.mutating))
def test_what_only_asks_is_asked_again(name: str) -> None:
    assert repeats(METHODS[name], {})


@pytest.mark.parametrize(
    ("name", "params", "again"),
    [
        ("process.run", {}, False),
        ("process.signal", {}, False),
        ("folder.unmount", {}, False),
        ("folder.commit", {}, False),
        ("session.delete", {}, False),
        ("file.write", {"append": True}, False),
        ("approval.answer", {}, False),
        ("sync_clock", {}, False),
        ("process.kill", {}, True),
        ("session.set_limits", {}, True),
        ("process.start", {}, False),
        ("process.start", {"id": "one"}, True),
        ("process.write_stdin", {"data": b"x"}, False),
        ("process.write_stdin", {"data": b"x", "offset": 0}, True),
        ("session.ensure", {"name": "work"}, True),
        ("session.ensure", {"name": "work", "resume": "new"}, False),
    ],
)
def test_what_changes_something_is_said_again_where_twice_is_as_good_as_once(
    name: str, params: dict[str, Any], again: bool
) -> None:
    assert repeats(METHODS[name], params) is again


@pytest.mark.parametrize(
    ("method", "error", "done"),
    [
        ("process.forget", NotFound("there is none"), True),
        ("process.forget", InvalidState("it still runs"), False),
        ("process.kill", NotFound("there is none"), False),
    ],
)
def test_what_is_to_be_gone_and_is_not_there_was_done(method: str, error: CoworkError, done: bool) -> None:
    assert says_done(method, error) is done


def test_a_call_that_was_cut_off_is_told_from_every_other_error() -> None:
    assert was_cut_off(compose_refusal("process.signal"))
    assert not was_cut_off(Unavailable("the launcher has gone"))
    assert not was_cut_off(NotFound("there is none", stage="restarted"))
