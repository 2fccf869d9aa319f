from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.folders import folder_methods
from coworkd.rpc.handlers.ports import FoldersApi, StagesApi
from coworkd.rpc.methods import Method
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


def methods_of(folders: Any, stages: Any) -> dict[str, Method]:
    return {method.name: method for method in folder_methods(folders, stages)}


@pytest.mark.parametrize("verb", sorted(verbs_of(FoldersApi)))
def test_each_method_calls_its_verb(verb: str) -> None:
    folders: Any = Recorder(FoldersApi)
    assert_calls(methods_of(folders, Recorder(StagesApi))[f"folder.{verb}"], FoldersApi, folders)


@pytest.mark.parametrize("verb", sorted(verbs_of(StagesApi)))
def test_each_method_of_what_is_held_back_calls_its_verb(verb: str) -> None:
    stages: Any = Recorder(StagesApi)
    assert_calls(methods_of(Recorder(FoldersApi), stages)[f"folder.{verb}"], StagesApi, stages)


def test_there_is_a_method_for_each_verb_and_no_other() -> None:
    verbs = {*verbs_of(FoldersApi), *verbs_of(StagesApi)}
    assert set(methods_of(Recorder(FoldersApi), Recorder(StagesApi))) == {f"folder.{verb}" for verb in verbs}
