from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import StorageApi
from coworkd.rpc.handlers.storage import storage_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize("verb", sorted(verbs_of(StorageApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorder: Any = Recorder(StorageApi)
    [method] = [each for each in storage_methods(recorder) if each.name == f"storage.{verb}"]
    assert_calls(method, StorageApi, recorder)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    recorder: Any = Recorder(StorageApi)
    assert {method.name for method in storage_methods(recorder)} == {f"storage.{verb}" for verb in verbs_of(StorageApi)}
