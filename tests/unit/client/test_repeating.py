"""`client.repeating`: what another coworkd than the one that was asked is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from coworkd.client.methods import all_methods
from coworkd.client.repeating import repeats

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
