from __future__ import annotations

from typing import Any

import pytest

from coworkd.rpc.handlers.ports import BridgesApi, ForwardsApi, StreamsApi
from coworkd.rpc.handlers.streams import bridge_methods, stream_methods
from tests.unit.rpc.handlers.verbs import Recorder, assert_calls, verbs_of


@pytest.mark.parametrize(
    ("group", "verb", "api"),
    [
        *(("forward", verb, ForwardsApi) for verb in sorted(verbs_of(ForwardsApi))),
        *(("stream", verb, StreamsApi) for verb in sorted(verbs_of(StreamsApi))),
        *(("bridge", verb, BridgesApi) for verb in sorted(verbs_of(BridgesApi))),
    ],
)
def test_each_method_calls_its_verb(group: str, verb: str, api: type) -> None:
    recorders: dict[type, Any] = {each: Recorder(each) for each in (ForwardsApi, StreamsApi, BridgesApi)}
    methods = (
        *stream_methods(recorders[StreamsApi], recorders[ForwardsApi]),
        *bridge_methods(recorders[BridgesApi]),
    )
    [method] = [each for each in methods if each.name == f"{group}.{verb}"]
    assert_calls(method, api, recorders[api])
    assert len(methods) == sum(len(verbs_of(each)) for each in recorders)
