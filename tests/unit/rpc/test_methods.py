from __future__ import annotations

import pytest

from coworkd.model.calls import Mutating, NoParams, ProcessRun, Subscribe
from coworkd.model.errors import Unimplemented
from coworkd.model.ports import LinkPort
from coworkd.rpc.methods import Method, MethodTable


async def nothing(params: object, link: LinkPort) -> dict[str, object]:
    return {}


TABLE = MethodTable(
    Method(name=name, params=NoParams, handler=nothing) for name in ("ping", "process.run", "session.ensure")
)


def test_find_returns_the_method() -> None:
    assert TABLE.find("ping").name == "ping"
    assert TABLE.names == ("ping", "process.run", "session.ensure")


@pytest.mark.parametrize(
    ("name", "words"),
    [("process.rum", "did you mean process.run?"), ("zzzz", "docs/protocol.md"), ("p" * 999, "lists")],
)
def test_unknown_methods_are_unimplemented_with_the_nearest_name(name: str, words: str) -> None:
    with pytest.raises(Unimplemented) as caught:
        TABLE.find(name)
    assert words in caught.value.message
    assert len(caught.value.message) < 200


def test_a_name_stands_once() -> None:
    with pytest.raises(ValueError, match="ping is in the table twice"):
        MethodTable([TABLE.find("ping"), TABLE.find("ping")])


@pytest.mark.parametrize(
    ("params", "expected"), [(ProcessRun, True), (Mutating, True), (Subscribe, False), (NoParams, False)]
)
def test_parameters_say_whether_a_method_changes_something(params: type[NoParams], expected: bool) -> None:
    assert Method(name="m", params=params, handler=nothing).mutating is expected
