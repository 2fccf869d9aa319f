from __future__ import annotations

from typing import Any

import pytest
import trio

from coworkd.model.calls import Hello, NoParams, Pong, ProtocolRange
from coworkd.model.errors import InvalidState, Unauthenticated
from coworkd.rpc.handlers.link import FEATURES, link_methods
from tests.unit.rpc.fake_health import FakeHealth


def say(name: str, params: Any, *, token: str | None = None) -> Any:
    table = {method.name: method for method in link_methods(FakeHealth(), token=token)}

    async def main() -> Any:
        return await table[name].handler(params, None)  # type: ignore[arg-type]

    return trio.run(main)


def hello(token: str | None = None, *, lowest: int = 1, highest: int = 1) -> Hello:
    return Hello(client="c", protocol=ProtocolRange(min=lowest, max=highest), token=token)


def test_hello_tells_version_and_features() -> None:
    answer = say("hello", hello(lowest=0, highest=7))
    assert (answer.protocol, answer.features) == (1, FEATURES)


@pytest.mark.parametrize(("lowest", "highest"), [(2, 3), (0, 0), (2, 1)])
def test_hello_without_a_common_version_says_what_is_spoken(lowest: int, highest: int) -> None:
    with pytest.raises(InvalidState) as caught:
        say("hello", hello(lowest=lowest, highest=highest))
    assert caught.value.details["supported"] == {"min": 1, "max": 1}


@pytest.mark.parametrize("given", [None, "", "wrong", "rightx", "righ", "ri\u00e4ht", "\udcff"])
def test_hello_needs_the_right_token(given: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        say("hello", hello(given), token="right")
    assert "right" not in caught.value.message.replace("the right one", "")


def test_hello_with_the_right_token_is_good() -> None:
    assert say("hello", hello("right"), token="right").protocol == 1
    assert say("hello", hello("not asked for")).protocol == 1


def test_ping_tells_the_clocks() -> None:
    assert isinstance(say("ping", NoParams()), Pong)


def test_only_hello_opens_a_link() -> None:
    assert [method.name for method in link_methods(FakeHealth(), token=None) if method.opens_link] == ["hello"]
