from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.egress import egress_methods
from coworkd.rpc.handlers.ports import EgressApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(EgressApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(EgressApi)
    [method] = [each for each in egress_methods(recorder) if each.name == f"egress.{verb}"]
    assert_calls(method, EgressApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(EgressApi)
    assert {method.name for method in egress_methods(recorder)} == {f"egress.{verb}" for verb in verbs_of(EgressApi)}
