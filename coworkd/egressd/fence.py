"""The one place where a fault of ours within a connection is caught: it ends that connection, and no other.

A connection and all that it leads to have a `Fence` where others have the loop, and whoever else calls into a connection does so by
`run`. What is raised there goes to `Faults`, the connection is told, and nothing is called on its behalf any more. Whatever is raised
outside of a fence ends the program, and so does what is raised while a connection is broken off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from coworkd.egressd.faults import Faults
from coworkd.egressd.loop import Handler, Loop, Timer

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Fence:
    """A `Turning`. `on_fault` is called once at most, with the id of the incident."""

    __slots__ = ("_faults", "_is_broken", "_loop", "_on_fault")

    def __init__(self, loop: Loop, faults: Faults, on_fault: Callable[[str], None]) -> None:
        self._loop = loop
        self._faults = faults
        self._on_fault: Callable[[str], None] | None = on_fault
        self._is_broken = False

    def run(self, call: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T | None:
        """Call; None where that fails, or something failed before."""
        if self._is_broken:
            return None
        try:
            return call(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever one connection does, the others go on
            incident = self._faults.note(error)
        self._is_broken = True
        self._loop.unregister_where(self._is_ours)
        on_fault, self._on_fault = self._on_fault, None
        if on_fault is not None:
            on_fault(incident)
        return None

    def guard(self, call: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """`call`, by way of `run`."""
        return partial(self.run, call)

    def outlive(self) -> None:
        """The connection is closed: who is still at work for it has nobody to tell."""
        self._on_fault = None

    def _is_ours(self, handler: Handler) -> bool:
        return isinstance(handler, partial) and getattr(handler.func, "__self__", None) is self

    # -- the loop -----------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self._loop.now

    @property
    def turns(self) -> int:
        return self._loop.turns

    def register(self, fd: int, mask: int, handler: Handler) -> None:
        self._loop.register(fd, mask, self.guard(handler))

    def modify(self, fd: int, mask: int) -> None:
        self._loop.modify(fd, mask)

    def handle(self, fd: int, handler: Handler) -> None:
        self._loop.handle(fd, self.guard(handler))

    def unregister(self, fd: int) -> None:
        self._loop.unregister(fd)

    def forget(self, fd: int) -> None:
        self._loop.forget(fd)

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer:
        return self._loop.call_later(delay_s, self.guard(call))
