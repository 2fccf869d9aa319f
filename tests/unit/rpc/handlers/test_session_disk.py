from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import PruneApi, RetentionApi, UsageApi
from coworkd.rpc.handlers.session_disk import session_disk_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of

APIS: dict[str, type] = {"usage": UsageApi, "prune": PruneApi, "retention": RetentionApi}


@pytest.mark.parametrize("verb", sorted(APIS))
def test_each_method_calls_its_verb(verb: str) -> None:
    recorders: dict[str, Any] = {name: Recorder(api) for name, api in APIS.items()}
    methods = session_disk_methods(recorders["usage"], recorders["prune"], recorders["retention"])
    [method] = [each for each in methods if each.name == f"session.{verb}"]
    assert verbs_of(APIS[verb]) == {verb}
    assert_calls(method, APIS[verb], recorders[verb])
