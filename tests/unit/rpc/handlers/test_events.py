from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.events import event_methods
from coworkd.rpc.handlers.ports import EventsApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(EventsApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(EventsApi)
    [method] = [each for each in event_methods(recorder) if each.name == f"events.{verb}"]
    assert_calls(method, EventsApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(EventsApi)
    assert {method.name for method in event_methods(recorder)} == {f"events.{verb}" for verb in verbs_of(EventsApi)}
