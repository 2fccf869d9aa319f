"""Something that must not be missed, and the one task that waits for it, cancelled or not.

It is an event without a scope around it: what costs nothing is used where every command passes. A task that was cancelled meanwhile
hears of that at its next checkpoint. Source: trio.lowlevel.wait_task_rescheduled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Coming(Generic[T]):
    """Comes once. All calls are made from trio's thread."""

    __slots__ = ("_come", "_task", "_value")

    def __init__(self) -> None:
        self._come = False
        self._task: trio.lowlevel.Task | None = None
        self._value: T

    def come(self, value: T) -> None:
        """It is there; the first time counts."""
        if not self._come:
            self._come, self._value = True, value
            if self._task is not None:
                trio.lowlevel.reschedule(self._task)

    async def wait(self) -> T:
        """Return it. Only one task may wait at a time; no checkpoint where it is there already."""
        if not self._come:
            if self._task is not None:
                raise trio.BusyResourceError("another task waits for this already")
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(_whatever_happens)
            self._task = None
        return self._value


def _whatever_happens(raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
