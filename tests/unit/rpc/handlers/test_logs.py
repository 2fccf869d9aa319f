from __future__ import annotations

from typing import Any

from coworkd.rpc.handlers.logs import log_methods
from coworkd.rpc.handlers.ports import LogsApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


def test_each_method_calls_its_verb() -> None:
    log: Any = Recorder(LogsApi)
    methods = {method.name: method for method in log_methods(log)}
    for verb in verbs_of(LogsApi):
        assert_calls(methods[verb], LogsApi, log)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    anything: Any = Recorder(LogsApi)
    assert {method.name for method in log_methods(anything)} == verbs_of(LogsApi)
