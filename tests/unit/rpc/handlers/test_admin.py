from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.admin import admin_methods
from coworkd.rpc.handlers.ports import HealthApi, ShutdownApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("protocol", [HealthApi, ShutdownApi])
def test_each_method_calls_its_verb(protocol: type) -> None:
    health: Any = Recorder(HealthApi)
    supervisor: Any = Recorder(ShutdownApi)
    methods = {method.name: method for method in admin_methods(health, supervisor)}
    for verb in verbs_of(protocol):
        assert_calls(methods[verb], protocol, health if protocol is HealthApi else supervisor)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    anything: Any = Recorder(HealthApi)
    names = {method.name for method in admin_methods(anything, anything)}
    assert names == verbs_of(HealthApi) | verbs_of(ShutdownApi)
