"""One call as a client keeps it, from when it is made until it was answered or has failed, without I/O.

Rules
- It ends once: with its answer, with the error it was answered with, or with that of its link.
- Where its link ends first it is made again on the next one, with the `request_id` it had, so that it happens once; it fails where
  it meant the link that ended, or nobody knows it (`repeatable`). Another coworkd does not know that id: there it is made again
  only where it may happen twice, and else fails (`repeating`).
- One that nobody waits for any more is answered all the same: its id stays taken until then, its answer is dropped.

It knows no link: `core` says it, and tells it what came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from coworkd.client.methods import all_methods
from coworkd.client.repeating import compose_refusal, repeats, says_done
from coworkd.model.errors import CoworkError, Unavailable
from coworkd.wire import convert
from coworkd.wire.connection import Response
from coworkd.wire.fault import parse_fault

S = TypeVar("S", bound=msgspec.Struct)
_METHODS = all_methods()
_OF_ONE_LINK = ("hello", "shutdown", "stream.")
"""Calls that mean this link, or its end: never made again on another."""
_REPEATABLE = frozenset(name for name in _METHODS if not name.startswith(_OF_ONE_LINK))
MUTATING = frozenset(name for name, method in _METHODS.items() if method.mutating)
"""Calls that take `request_id`."""


class Pending:
    """One call that was made. `done` is set once, then `result` or `error` is."""

    __slots__ = (
        "done", "elsewhere", "error", "hook", "link", "method", "params", "refused", "repeatable", "repeated", "request_id",
        "result", "sent", "unwanted",
    )  # fmt: skip

    def __init__(
        self, method: str, params: Mapping[str, Any], link: int, hook: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.method = method
        self.params = params
        self.link = link
        """The link it was made for, by `Core.link`: its bytes go there or nowhere."""
        self.request_id = -1
        self.hook = hook
        """What is done with the answer."""
        self.repeatable = method in _REPEATABLE
        """It may be made again on the next link, when this one ends before the answer."""
        self.repeated = False
        """A guest may have heard it before."""
        self.elsewhere = False
        """That was another coworkd, so that what is answered may be of what the call itself has done there."""
        self.unwanted: Callable[[dict[str, Any]], None] | None = None
        """What is done with the answer instead, once nobody waits for it."""
        self.refused: Callable[[CoworkError], object] | None = None
        """What is done with an error it is answered with."""
        self.sent = False
        """Whether a guest may have heard it, see `Core.unheard`."""
        self.done = False
        self.result: dict[str, Any] = {}
        self.error: CoworkError | None = None

    def answer(self) -> dict[str, Any]:
        """The result, or raise the error it was answered with."""
        if self.error is not None:
            raise self.error
        return self.result

    def settle(self, response: Response) -> None:
        """It was answered. Raises what `hook` and `refused` do."""
        if response.error is not None:
            error = parse_fault(response.error)
            if not (self.elsewhere and says_done(self.method, error)):
                self.error = error
            if self.refused is not None:
                self.refused(error)
        elif isinstance(response.result, dict):
            self.result = response.result
            if self.hook is not None:
                self.hook(response.result)
        else:
            self.error = Unavailable(f"{self.method} was answered with something that is no map")
        self.done = True

    def fail(self, error: CoworkError) -> None:
        """No answer comes any more, because of `error`."""
        self.error = error
        self.done = True

    def repeat(self, same: bool) -> bool:
        """Whether to make it on the next link, which is one to the `same` coworkd or to another. Where not, it has failed."""
        if self.sent and not same and not repeats(_METHODS[self.method], self.params):
            self.fail(compose_refusal(self.method))
            return False
        self.repeated, self.sent = self.sent, True
        self.elsewhere = self.elsewhere or (self.repeated and not same)
        return True

    def abandon(self) -> None:
        """Nobody waits any more: its answer is dropped when it comes. The id stays taken until then."""
        if self.method != "hello":
            self.hook = self.unwanted


def read_answer(method: str, answer: Mapping[str, Any], kind: type[S]) -> S:
    """An answer or event as its type, unknown fields ignored; raises `Unavailable` where the guest speaks otherwise."""
    try:
        return convert.read_answer(answer, kind)
    except msgspec.ValidationError as error:
        raise Unavailable(
            f"the guest's answer to {method} cannot be read ({error}): are host and guest of versions that fit?",
            method=method,
        ) from error
