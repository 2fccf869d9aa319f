"""Events of the guest as sentences."""

from __future__ import annotations

import pytest

from host_stub.guest_events import NAMES, describe_event
from host_stub.guest_link import EVENT_NAMES


def test_every_event_that_is_told_is_told_in_words() -> None:
    assert EVENT_NAMES | {"clock.synced"} == NAMES
    assert not [name for name in NAMES if "." in describe_event(name, {})]


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("storage.pressure", {"mark": 90, "used_percent": 91}, "the session disk fills up, percent used: 91"),
        ("reachability", {"target": "a:1", "reachable": False}, "what the guest tries to reach: a:1, no"),
        ("clock.stepped", {"delta_s": 3.26, "source": "hello"}, "the guest's clock was set, by seconds: 3.3, hello"),
        ("share.state", {"state": "absent", "reason": None}, "the share in the guest: absent"),
        ("clock.synced", {"reason": ""}, "the guest was told the time"),
        ("other.thing", {"x": 1}, "the guest tells of other.thing"),
    ],
)
def test_a_sentence_ends_with_what_matters(name: str, params: dict[str, object], said: str) -> None:
    assert describe_event(name, params) == said


def test_what_a_guest_puts_into_an_event_is_cut() -> None:
    assert len(describe_event("update.refused", {"version": "v" * 9999, "reason": ["x" * 9999]})) < 500
