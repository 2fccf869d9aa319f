from __future__ import annotations

from typing import Any

import pytest
import trio

from coworkd.rpc.handlers.boot import boot_methods
from coworkd.rpc.handlers.ports import BootApi, ClockApi, ShutdownApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls


@pytest.mark.parametrize("name", ["boot_time", "shutdown"])
def test_each_method_calls_its_verb(name: str) -> None:
    protocol = {"boot_time": BootApi, "shutdown": ShutdownApi}[name]
    recorder: Any = Recorder(protocol)
    (method,) = (method for method in boot_methods(recorder, recorder, recorder) if method.name == name)
    assert_calls(method, protocol, recorder)


def test_sync_clock_is_the_clocks_sync() -> None:
    clock: Any = Recorder(ClockApi)
    (method,) = (method for method in boot_methods(clock, clock, clock) if method.name == "sync_clock")
    params: Any = object()
    assert trio.run(method.handler, params, params) == "answer of sync"
    assert clock.calls == [("sync", (params,))]
