from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.folders import folder_methods
from coworkd.rpc.handlers.ports import FoldersApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(FoldersApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(FoldersApi)
    [method] = [each for each in folder_methods(recorder) if each.name == f"folder.{verb}"]
    assert_calls(method, FoldersApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(FoldersApi)
    assert {method.name for method in folder_methods(recorder)} == {f"folder.{verb}" for verb in verbs_of(FoldersApi)}
