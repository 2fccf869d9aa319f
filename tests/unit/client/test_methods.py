"""The table of methods is whole, and both clients have all of it."""

from __future__ import annotations

import inspect

import pytest
from msgspec import Struct

from coworkd.client import aio, methods, sync
from coworkd.client.requests import run_request, start_request
from coworkd.model import calls

BY_HAND = {
    "process.run": "run",
    "process.start": "start",
    "process.attach": "attach",
    "events.subscribe": "events",
    "forward.open": "forward",
    "file.upload": "upload",
    "file.download": "download",
}
BUILDERS = {run_request: calls.ProcessRun, start_request: calls.ProcessStart}


@pytest.mark.parametrize("client", [sync.Client, aio.AsyncClient])
def test_both_clients_have_every_method(client: type) -> None:
    missing = [name for name in methods.all_methods() if not hasattr(client, BY_HAND.get(name, name.replace(".", "_")))]
    assert missing == []


def test_every_parameter_type_of_the_model_belongs_to_a_method() -> None:
    used = {BUILDERS.get(method.build, method.build) for method in methods.all_methods().values()}
    bases = {calls.Params, calls.Mutating}
    params = {
        kind for _, kind in inspect.getmembers(calls, inspect.isclass)
        if issubclass(kind, calls.Params) and kind not in bases
    }  # fmt: skip
    assert params - used == {calls.Hello}


@pytest.mark.parametrize("build", BUILDERS)
def test_a_builder_knows_every_field_of_its_type(build: object) -> None:
    kind = BUILDERS[build]  # type: ignore[index]
    assert issubclass(kind, Struct)
    names = set(inspect.signature(build).parameters)  # type: ignore[arg-type]
    assert names == set(kind.__struct_fields__)
