"""The table of methods: name → parameters, handler. Data only; who may call when is the link's to ask.

Rules: a method whose parameters are `Mutating` takes `request_id`, is replayed by it, and runs to its end even if its link
is lost; all others end with their link. Exactly one method (`hello`) opens a link and is allowed before it is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from msgspec import Struct

from coworkd.model.calls import Mutating, Params
from coworkd.model.errors import Unimplemented
from coworkd.model.ports import LinkPort
from coworkd.wire.convert import nearest

Handler = Callable[[Any, LinkPort], Awaitable[Any]]
"""Takes the parsed parameters and the calling link, and gives a Struct or a mapping."""


class Method(Struct, frozen=True, kw_only=True):
    """One method. `params` is the type its handler takes."""

    name: str
    params: type[Params]
    handler: Handler
    opens_link: bool = False

    @property
    def mutating(self) -> bool:
        return issubclass(self.params, Mutating)


class MethodTable:
    """Every method this build has, by name."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._methods: dict[str, Method] = {}
        for method in methods:
            if method.name in self._methods:
                raise ValueError(f"method {method.name} is in the table twice")
            self._methods[method.name] = method

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._methods))

    def find(self, name: str) -> Method:
        """Return the method, or raise `Unimplemented` with the nearest name."""
        method = self._methods.get(name)
        if method is not None:
            return method
        close = nearest(name, list(self._methods))
        remedy = f"did you mean {close}?" if close else "docs/protocol.md lists them"
        raise Unimplemented(f"there is no method {name[:64]!r}; {remedy}", nearest=close)
