"""What a coworkd has from its first moment, before a launcher, a disk or a policy: the door, the clock, the log, the way to its end.

Its methods are the ones that are served while the rest comes up, and go on being served by the same parts afterwards.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from coworkd.bring_up import Ground, Mode
from coworkd.config import Config
from coworkd.door import Door
from coworkd.health_port import HealthPort
from coworkd.model import calls, calls_boot
from coworkd.model.errors import InvalidParams, InvalidState
from coworkd.rpc.handlers.boot import boot_methods
from coworkd.rpc.handlers.events import event_methods
from coworkd.rpc.handlers.link import link_methods
from coworkd.rpc.handlers.logs import log_methods
from coworkd.rpc.methods import Method
from coworkd.services.boot_times import BootTimes
from coworkd.services.clock import Clock
from coworkd.services.logs import LogService
from coworkd.services.power_off import LEAST_SYNC_S, enforce
from coworkd.unit import Unit

LEAST_BUDGET_S, MOST_BUDGET_S = 1.0, 600.0
_log = logging.getLogger("coworkd.app")


class Early:
    """Made with the ground, used by `app` to its end. Owns the door."""

    def __init__(
        self, config: Config, *, ground: Ground, logs: LogService, mode: Mode, unit: Unit, token: str | None
    ) -> None:
        """`token` is what a host has to say in `hello`, or None."""
        self._config = config
        self._ground = ground
        self._mode = mode
        self._unit = unit
        self.door = Door(config.endpoints, doing=lambda: ground.health.doing, degrade=ground.health.degrade)
        self.clock = Clock(
            audit=self.door.audit,
            events=ground.events,
            may_set=config.guest.keep_clock,
            on_state=lambda reason: ground.health.degrade("clock", reason),
        )
        boot = BootTimes(ground.health, boot_id=ground.boot_id, in_guest=mode == "serve")
        self.methods: tuple[Method, ...] = (
            *link_methods(ground.health, token=token, keep_clock=self.clock.greeted),
            *boot_methods(boot, self.clock, self),
            *log_methods(logs),
            *event_methods(ground.events),
        )
        self.door.put_methods(self.methods)
        self._health_port = HealthPort(config.health, health=ground.health)

    async def come_up(self, nursery: trio.Nursery, *, alongside: Callable[[], object]) -> None:
        """Start what runs, then the ground; in a guest the door is open as soon as nobody else can be behind it. `alongside` is called in
        a thread meanwhile, once the door is open.
        """
        nursery.start_soon(self._unit.serve, self._ground.health)
        nursery.start_soon(self._ground.health.beat)
        await nursery.start(self.clock.serve)

        async def listen() -> None:
            with self._ground.health.stage("listen"):
                await self.door.open(nursery, patient=True)
            self._unit.listening()
            nursery.start_soon(trio.to_thread.run_sync, alongside)
            nursery.start_soon(self._health_port.serve)

        await self._ground.come_up(nursery, listen if self._mode == "serve" else None)
        if self._mode != "serve":
            nursery.start_soon(self._health_port.serve)

    async def shutdown(self, params: calls_boot.Shutdown, /) -> calls.Empty:
        """See `rpc.handlers.ports.ShutdownApi`. Raises `InvalidParams`, `InvalidState` where the machine is not ours to turn off."""
        guest = self._config.guest
        budget_s = guest.shutdown_s if params.budget_s is None else params.budget_s
        if not (math.isfinite(budget_s) and LEAST_BUDGET_S <= budget_s <= MOST_BUDGET_S):
            raise InvalidParams(
                f"budget_s must be {LEAST_BUDGET_S:g} to {MOST_BUDGET_S:g}, not {budget_s}", key="budget_s"
            )
        if params.power_off and not guest.power_off:
            raise InvalidState(
                "this machine is not coworkd's to turn off: guest.power_off in coworkd.toml does not say so; leave power_off "
                "away to stop coworkd alone",
                key="power_off",
            )
        if params.power_off and budget_s < self._ground.ending.left_s:  # one thread for each budget, not for each call
            enforce(budget_s + LEAST_SYNC_S)
        said = f": {params.reason[:200]}" if params.reason else ""
        self._ground.ending.end(
            f"asked for over a link{said}", power_off_within_s=budget_s if params.power_off else None
        )
        return calls.Empty()
