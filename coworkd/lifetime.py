"""One coworkd from its first moment to its end, and the loading of the rest meanwhile.

Until the door is open only what the door needs is loaded: a slow machine answers seconds earlier. `app`, which is all of coworkd, is
loaded in a thread while launcher and disk come up.

Not here: what coworkd is made of (`composition`) and in which order that comes up (`app`).
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from coworkd.bring_up import Connects, Ground, Mode
from coworkd.config import Config
from coworkd.early import Early
from coworkd.services.logs import LogService
from coworkd.services.power_off import power_off
from coworkd.unit import Unit

if TYPE_CHECKING:
    from coworkd.app import App
    from coworkd.services.process_carrying import Carried
    from coworkd.slot_start import SlotStart

SLOT, LISTENERS = "COWORKD_SLOT", "COWORKD_LISTENERS"
"""As in `slot_start`: who is given sockets has them before anything is listened on."""
_LINKS_GRACE_S = 2.0


async def serve(
    config: Config,
    *,
    mode: Mode,
    connects: Connects,
    logs: LogService,
    ready: Callable[[], None],
    unit: Unit | None = None,
) -> None:
    """One coworkd from coming up to its end, and again where its disk is back. Raises what keeps it from coming up.

    `ready` is called once, when all is there; `unit` is told how far it is.
    """
    unit = unit or Unit(None)
    carried: list[Carried] = []
    while await _serve_once(config, mode=mode, connects=connects, logs=logs, ready=ready, unit=unit, carried=carried):
        ready = _ready_before


async def _serve_once(
    config: Config,
    *,
    mode: Mode,
    connects: Connects,
    logs: LogService,
    ready: Callable[[], None],
    unit: Unit,
    carried: list[Carried],
) -> bool:
    """Whether it is to come up again. `carried` is what the one before left of its commands; then, what this one leaves."""
    ground = Ground(config, connect=connects.launcher)
    while carried:
        ground.launcher.carry(*carried.pop())
    ending = ground.ending
    slot: SlotStart | None = None
    app: App | None = None
    early = Early(config, ground=ground, logs=logs, mode=mode, unit=unit, token=read_token(config.token_file))
    if LISTENERS in os.environ:
        early.door.server.handed = _load("slot_start").take_listeners()
    try:
        async with trio.open_nursery() as nursery:
            with ending.coming_up():
                await early.come_up(nursery, alongside=_load_rest)
                slot = (await _loaded("slot_start")).SlotStart(config, ground=ground, mode=mode)
                config = await slot.enter(lambda: early.door.server.listening, early.door.audit.take_kept)
            if slot is not None and not ending.wanted.is_set():
                serving: App = (await _loaded("app")).App(
                    config,
                    mode=mode,
                    connect=connects.egress,
                    logs=logs,
                    ground=ground,
                    early=early,
                    updates=slot.updates,
                )
                app = serving
                slot.watched_by(serving.audit, egress_pid=lambda: serving.egress_pid)
                await serving.run(ready)
            if not (ending.again or ending.restart):  # the manager would wait for an end that does not come
                unit.stopping()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + ending.left_s):
                if slot is None and SLOT in os.environ:
                    slot = (await _loaded("slot_start")).SlotStart(config, ground=ground, mode=mode)
                if slot is not None:
                    await slot.leave()
                await early.door.shut(_LINKS_GRACE_S)
                if mode == "local" or ground.ends_all:
                    await ground.quit()
            if app is not None:
                carried += app.carried
            nursery.cancel_scope.cancel()
        if mode == "local":
            await ground.end_unserved(config.launcher_socket, config.egress_socket)
    finally:
        ground.close()
    if ending.power_off_within_s is not None:
        await power_off(ending.left_s)
    return ending.again or ending.restart


def _ready_before() -> None:
    """Whoever started us was told once."""


def _load_rest() -> None:
    for name in ("slot_start", "app"):
        _load(name)


async def _loaded(name: str) -> Any:
    """The same, in a thread: hosts are answered meanwhile."""
    return await trio.to_thread.run_sync(_load, name)


def _load(name: str) -> Any:
    """A module of the floor below that is not loaded before the door is open. Twice is once, and waits for whoever does it."""
    return importlib.import_module(f"coworkd.{name}")


def read_token(path: str) -> str | None:
    """The token in the file, None where none is wanted. Raises `OSError` where it cannot be read or is empty: fail closed."""
    if not path:
        return None
    token = Path(path).read_text().strip()
    if not token:
        raise OSError(errno.EINVAL, "the token file is empty: put a secret into it, or take token_file away", path)
    return token
