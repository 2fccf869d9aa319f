"""Where the time of this boot went, from the kernel's start to ready, in one table.

The kernel's part ends where userspace begins; systemd tells its own moments and those of its units; coworkd knows when the kernel started
it, when its modules were there, and its stages. What cannot be found out is said in `notes`, and the rest is told.

Nothing is measured here that was not measured anyway; systemd is asked only when somebody asks us.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import trio

from coworkd.model.calls import Stage
from coworkd.model.calls_boot import BootStep, BootTime
from coworkd.system.manager_times import read_manager_times, read_unit_times
from coworkd.system.process_start import read_start_s

_SPANS = (
    ("security set-up", "SecurityStartTimestampMonotonic", "SecurityFinishTimestampMonotonic"),
    ("generators", "GeneratorsStartTimestampMonotonic", "GeneratorsFinishTimestampMonotonic"),
    ("loading units", "UnitsLoadStartTimestampMonotonic", "UnitsLoadFinishTimestampMonotonic"),
)
_LEAST_UNIT_S = 0.005
"""A unit that took less is no place where time went."""


class StageTimes(Protocol):
    """The stages of coming up."""

    @property
    def timed(self) -> tuple[tuple[Stage, float], ...]:
        """Each with its beginning by CLOCK_MONOTONIC."""

    @property
    def ready_at(self) -> float | None:
        """By CLOCK_MONOTONIC."""

    @property
    def made_at(self) -> float:
        """When coming up began, by CLOCK_MONOTONIC."""


class BootTimes:
    """Implements `rpc.handlers.ports.BootApi`."""

    def __init__(
        self,
        stages: StageTimes,
        *,
        boot_id: str,
        in_guest: bool,
        manager: Callable[[], dict[str, float]] = read_manager_times,
        units: Callable[[], list[tuple[str, float, float]]] = read_unit_times,
        started: Callable[[], float] = read_start_s,
    ) -> None:
        """`in_guest` False: this coworkd has nothing to do with how its machine came up, and says only its own part."""
        self._stages = stages
        self._boot_id = boot_id
        self._in_guest = in_guest
        self._manager = manager
        self._units = units
        self._started = started

    async def boot_time(self) -> BootTime:
        """The table, in the order things began."""
        machine, notes = await trio.to_thread.run_sync(self._read_machine)
        steps = [*machine, *self._own()]
        return BootTime(
            boot_id=self._boot_id,
            steps=tuple(sorted(steps, key=lambda step: step.start_s)),
            ready_s=self._stages.ready_at,
            notes=tuple(notes),
        )

    def _own(self) -> list[BootStep]:
        began, made = self._started(), self._stages.made_at
        own = [
            BootStep(
                group="coworkd",
                name=f"starting Python (pid {os.getpid()})",
                start_s=began,
                took_s=max(0.0, made - began),
            )
        ]
        for stage, start in self._stages.timed:
            own.append(
                BootStep(group="coworkd", name=stage.name, start_s=start, took_s=stage.took_s, error=stage.error)
            )
        return own

    def _read_machine(self) -> tuple[list[BootStep], list[str]]:
        if not self._in_guest:
            return [], ["this machine was there before: only coworkd's own part is told"]
        try:
            moments, units = self._manager(), self._units()
        except OSError as error:
            return [], [f"systemd could not be asked: {error.strerror}"]
        return [*compose_manager_steps(moments), *compose_unit_steps(units)], []


def compose_manager_steps(moments: dict[str, float]) -> list[BootStep]:
    """The kernel, the initrd where it was systemd's, systemd itself, and the spans systemd measures of its own start."""
    userspace = moments.get("UserspaceTimestampMonotonic")
    if userspace is None:
        return []
    initrd = moments.get("InitRDTimestampMonotonic")
    kernel_s = userspace if initrd is None else initrd
    steps = [BootStep(group="kernel", name="kernel" if initrd else "kernel and initrd", start_s=0.0, took_s=kernel_s)]
    if initrd is not None:
        steps.append(BootStep(group="initrd", name="initrd", start_s=initrd, took_s=userspace - initrd))
    finish = moments.get("FinishTimestampMonotonic")
    if finish is not None:
        steps.append(
            BootStep(group="system", name="systemd, to its target", start_s=userspace, took_s=finish - userspace)
        )
    for name, begins, ends in _SPANS:
        if begins in moments and ends in moments:
            steps.append(
                BootStep(group="system", name=name, start_s=moments[begins], took_s=moments[ends] - moments[begins])
            )
    return steps


def compose_unit_steps(units: list[tuple[str, float, float]]) -> list[BootStep]:
    """Units in which time went; coworkd's own always."""
    return [
        BootStep(group="unit", name=name, start_s=began, took_s=up - began)
        for name, began, up in units
        if up - began >= _LEAST_UNIT_S or name.startswith("coworkd")
    ]
