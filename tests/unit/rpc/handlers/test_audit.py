from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.audit import audit_methods
from coworkd.rpc.handlers.ports import AuditApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(AuditApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(AuditApi)
    [method] = [each for each in audit_methods(recorder) if each.name == f"audit.{verb}"]
    assert_calls(method, AuditApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(AuditApi)
    assert {method.name for method in audit_methods(recorder)} == {f"audit.{verb}" for verb in verbs_of(AuditApi)}
