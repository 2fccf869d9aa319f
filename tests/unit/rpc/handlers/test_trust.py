from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import CaApi
from coworkd.rpc.handlers.trust import trust_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(CaApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(CaApi)
    [method] = [each for each in trust_methods(recorder) if each.name == f"ca.{verb}"]
    assert_calls(method, CaApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(CaApi)
    assert {method.name for method in trust_methods(recorder)} == {f"ca.{verb}" for verb in verbs_of(CaApi)}
