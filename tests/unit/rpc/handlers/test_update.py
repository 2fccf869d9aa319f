from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import UpdateApi
from coworkd.rpc.handlers.update import update_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(UpdateApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(UpdateApi)
    [method] = [each for each in update_methods(recorder) if each.name == f"update.{verb}"]
    assert_calls(method, UpdateApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(UpdateApi)
    assert {method.name for method in update_methods(recorder)} == {f"update.{verb}" for verb in verbs_of(UpdateApi)}
