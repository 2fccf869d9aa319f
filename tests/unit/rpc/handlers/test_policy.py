from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.policy import policy_methods
from coworkd.rpc.handlers.ports import PoliciesApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(PoliciesApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(PoliciesApi)
    [method] = [each for each in policy_methods(recorder) if each.name == f"policy.{verb}"]
    assert_calls(method, PoliciesApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(PoliciesApi)
    assert {method.name for method in policy_methods(recorder)} == {f"policy.{verb}" for verb in verbs_of(PoliciesApi)}
