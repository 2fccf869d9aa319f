from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import SessionsApi
from coworkd.rpc.handlers.session import session_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(SessionsApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(SessionsApi)
    [method] = [each for each in session_methods(recorder) if each.name == f"session.{verb}"]
    assert_calls(method, SessionsApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(SessionsApi)
    assert {method.name for method in session_methods(recorder)} == {
        f"session.{verb}" for verb in verbs_of(SessionsApi)
    }
