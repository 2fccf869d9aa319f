from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import ToolsApi
from coworkd.rpc.handlers.tools import tool_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(ToolsApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(ToolsApi)
    [method] = [each for each in tool_methods(recorder) if each.name == f"tool.{verb}"]
    assert_calls(method, ToolsApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(ToolsApi)
    assert {method.name for method in tool_methods(recorder)} == {f"tool.{verb}" for verb in verbs_of(ToolsApi)}
