from __future__ import annotations

from typing import get_type_hints

import pytest
from msgspec import Struct

from coworkd.model import calls
from coworkd.rpc.handlers import ports
from tests.unit.rpc.handlers.verbs import verbs_of

APIS = [each for name, each in vars(ports).items() if name.endswith("Api")]


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.__name__)
def test_verbs_take_parameters_of_the_model_and_answer_with_structs_or_maps(api: type) -> None:
    for verb in verbs_of(api):
        hints = get_type_hints(getattr(api, verb))
        answer = hints.pop("return")
        assert "Mapping" in str(answer) or issubclass(answer, Struct), verb
        if "params" in hints:
            assert issubclass(hints["params"], calls.Params), verb
