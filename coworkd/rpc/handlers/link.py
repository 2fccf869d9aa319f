"""`hello` and `ping`.

`hello` compares the token in constant time (`hmac.compare_digest`) before anything else is looked at or told.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable

from coworkd.model.calls import Hello, HelloAnswer, NoParams, Pong
from coworkd.model.errors import InvalidParams, InvalidState, Unauthenticated
from coworkd.model.ports import LinkPort
from coworkd.rpc.handlers.ports import HelloApi
from coworkd.rpc.methods import Method
from coworkd.wire.limits import PROTOCOL_VERSION

FEATURES = ("request_id", "events", "attach", "tty", "early", "clock", "keepalive", "acknowledge")
"""What a host may lean on beyond the methods themselves."""
KEEPALIVE_LEAST_S, KEEPALIVE_MOST_S = 1.0, 3600.0
KeepClock = Callable[[float], Awaitable[None]]
"""Never raises: a clock that cannot be set keeps no host out."""


def link_methods(
    health: HelloApi, *, token: str | None, features: tuple[str, ...] = FEATURES, keep_clock: KeepClock | None = None
) -> tuple[Method, ...]:  # fmt: skip
    """The methods of a link itself. `token` is the shared secret, or None where links need none; `keep_clock` is given the time that a
    host says in `hello`.
    """

    async def hello(params: Hello, link: LinkPort) -> HelloAnswer:
        _check_token(params.token, token)
        _check_keepalive(params.keepalive_s)
        if params.time is not None and keep_clock is not None:
            await keep_clock(params.time)
        return health.hello_answer(features, _choose_version(params))

    async def ping(params: NoParams, link: LinkPort) -> Pong:
        return Pong(time=time.time(), monotonic=time.monotonic())

    return (
        Method(name="hello", params=Hello, handler=hello, opens_link=True),
        Method(name="ping", params=NoParams, handler=ping),
    )


def _check_token(given: str | None, token: str | None) -> None:
    if token is None:
        return
    if given is None:
        raise Unauthenticated("this coworkd wants a token in hello; its token_file has it")
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode("utf-8", "surrogatepass")):
        raise Unauthenticated("the token of hello is wrong; its token_file has the right one")


def _check_keepalive(keepalive_s: float | None) -> None:
    if keepalive_s is not None and not KEEPALIVE_LEAST_S <= keepalive_s <= KEEPALIVE_MOST_S:
        raise InvalidParams(
            f"keepalive_s must be {KEEPALIVE_LEAST_S:g} to {KEEPALIVE_MOST_S:g} seconds, not {keepalive_s}; leave it out to"
            " promise nothing",
            key="keepalive_s",
        )


def _choose_version(params: Hello) -> int:
    if params.protocol.min <= PROTOCOL_VERSION <= params.protocol.max:
        return PROTOCOL_VERSION
    raise InvalidState(
        f"no common protocol version: this coworkd speaks {PROTOCOL_VERSION}, the client {params.protocol.min} to "
        f"{params.protocol.max}; update the older side",
        supported={"min": PROTOCOL_VERSION, "max": PROTOCOL_VERSION},
    )
