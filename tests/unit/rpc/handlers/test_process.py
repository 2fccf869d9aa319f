from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import ProcessesApi
from coworkd.rpc.handlers.process import process_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(ProcessesApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(ProcessesApi)
    [method] = [each for each in process_methods(recorder) if each.name == f"process.{verb}"]
    assert_calls(method, ProcessesApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(ProcessesApi)
    assert {method.name for method in process_methods(recorder)} == {
        f"process.{verb}" for verb in verbs_of(ProcessesApi)
    }
