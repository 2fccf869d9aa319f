from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.approvals import approval_methods
from coworkd.rpc.handlers.ports import ApprovalsApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(ApprovalsApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(ApprovalsApi)
    [method] = [each for each in approval_methods(recorder) if each.name == f"approval.{verb}"]
    assert_calls(method, ApprovalsApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(ApprovalsApi)
    assert {method.name for method in approval_methods(recorder)} == {
        f"approval.{verb}" for verb in verbs_of(ApprovalsApi)
    }
