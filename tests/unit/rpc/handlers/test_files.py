from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.files import file_methods
from coworkd.rpc.handlers.ports import FilesApi
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(FilesApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(FilesApi)
    [method] = [each for each in file_methods(recorder) if each.name == f"file.{verb}"]
    assert_calls(method, FilesApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(FilesApi)
    assert {method.name for method in file_methods(recorder)} == {f"file.{verb}" for verb in verbs_of(FilesApi)}
