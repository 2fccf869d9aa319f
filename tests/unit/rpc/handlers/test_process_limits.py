from __future__ import annotations

from typing import Any

from coworkd.rpc.handlers.ports import ProcessLimitsApi
from coworkd.rpc.handlers.process_limits import process_limits_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls


def test_each_method_calls_its_verb() -> None:
    recorder: Any = Recorder(ProcessLimitsApi)
    [method] = process_limits_methods(recorder)
    assert method.name == "process.set_limits"
    assert_calls(method, ProcessLimitsApi, recorder)
