from __future__ import annotations

from typing import Any

from coworkd.rpc.handlers.admin import admin_methods
from coworkd.rpc.handlers.ports import HealthApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


def test_each_method_calls_its_verb() -> None:
    health: Any = Recorder(HealthApi)
    methods = {method.name: method for method in admin_methods(health)}
    for verb in verbs_of(HealthApi):
        assert_calls(methods[verb], HealthApi, health)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    anything: Any = Recorder(HealthApi)
    assert {method.name for method in admin_methods(anything)} == verbs_of(HealthApi)
