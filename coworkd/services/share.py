"""The host's share: mounted as coworkd comes up, or when it comes. Only folders need it; nothing else waits for it or fails without it.

Rules
- A machine without a device for it has no share: that is the host's choice, and no fault. `auto` says so in `share.state` alone; where
  the configuration names a kind the share is wanted, and its absence is `degraded.share`.
- A device whose share cannot be mounted is `degraded.share` in either case, and tried again every `RETRY_S`.
- Coming up waits for it at most `wait_s`, and only where there is something to wait for.

Nothing here touches a file of the share: a host that hangs would take its caller along.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Literal, Protocol

import trio

from coworkd.config import ShareConfig
from coworkd.model import share
from coworkd.model.errors import CoworkError
from coworkd.model.ports import EventPort
from coworkd.system.virtio_devices import FILE_SYSTEM, NINEP, device_types

LOOK_S = 1.0
RETRY_S = 5.0
_TYPES: dict[share.ShareKind, int] = {"virtiofs": FILE_SYSTEM, "9p": NINEP}
_log = logging.getLogger("coworkd.share")

State = Literal["none", "absent", "mounted"]


class SharePort(Protocol):
    """Who can mount it. Both raise `Unavailable` where nobody is there to."""

    async def mount(self, ask: share.MountShare, /) -> share.Answer: ...

    async def own(self, mount_point: str, /) -> None: ...


class Share:
    """`serve` mounts it, and is started when that has been done or waited for."""

    def __init__(
        self,
        config: ShareConfig,
        *,
        worker: SharePort,
        events: EventPort,
        on_state: Callable[[str | None], None],
        types: Callable[[], list[int]] = device_types,
    ) -> None:
        """`on_state` is told why the share is not there though it should be, or None."""
        self._config = config
        self._worker = worker
        self._events = events
        self._on_state = on_state
        self._types = types
        self._kinds: tuple[share.ShareKind, ...] = ("virtiofs", "9p") if config.kind == "auto" else ()
        if config.kind in ("virtiofs", "9p"):
            self._kinds = ("virtiofs",) if config.kind == "virtiofs" else ("9p",)
        self.state: State = "absent" if self._kinds else "none"
        self.kind: share.ShareKind | None = None
        self._told: tuple[State, str] | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it is mounted, then nothing more."""
        if not self._kinds:
            task_status.started()
            return
        waited = False
        until = trio.current_time() + self._config.wait_s
        while not await self._try():
            wait_for_it = (self._wanted or self._there()) and trio.current_time() < until
            if not wait_for_it and not waited:
                waited = True
                task_status.started()
            await trio.sleep(LOOK_S if not self._there() else min(RETRY_S, LOOK_S if wait_for_it else RETRY_S))
        if not waited:
            task_status.started()

    @property
    def _wanted(self) -> bool:
        return self._config.kind != "auto"

    def _there(self) -> tuple[share.ShareKind, ...]:
        """The kinds that have a device here."""
        types = self._types()
        return tuple(kind for kind in self._kinds if _TYPES[kind] in types)

    async def _try(self) -> bool:
        there = self._there()
        if not there:
            return self._absent("this machine has no device of a share", is_fault=self._wanted)
        mount_point = self._config.mount_point
        ask = share.MountShare(id=1, kinds=there, tag=self._config.tag, mount_point=os.fsencode(mount_point))
        try:
            answer = await self._worker.mount(ask)
            if isinstance(answer, share.ShareMounted):
                await self._worker.own(mount_point)
        except CoworkError as error:
            return self._absent(error.message, is_fault=True)
        if isinstance(answer, share.ShareAbsent):
            return self._absent(answer.reason, is_fault=True)
        self.state, self.kind = "mounted", answer.kind
        if not answer.already:
            _log.info("mounted share %s at %s by %s", self._config.tag, mount_point, answer.kind)
        self._on_state(None)
        self._tell("")
        return True

    def _absent(self, reason: str, *, is_fault: bool) -> bool:
        self._on_state(reason if is_fault else None)
        if is_fault and self._told != ("absent", reason):
            _log.warning("no share: %s", reason)
        self._tell(reason)
        return False

    def _tell(self, reason: str) -> None:
        if self._told != (self.state, reason):
            self._told = (self.state, reason)
            self._events.publish("share.state", {"state": self.state, "kind": self.kind, "reason": reason})
