"""Guarding: who listens while sessions change what their folders hold.

Rules
- A guarded folder tells what is changed in it, and asks about deletes (`guarding_channel`, `approvals`). Of any other that can be written
  the watch worker tells, from the side of its source (`guarding_trees`).
- All that is told becomes activity, with the command that did it as far as that is known: at once, or `AGAIN_S` later.
- A file system that ends is told as `folder.failed`, and to whoever mounts folders; what waited in it was refused by its end.
- Watching never keeps a folder from being mounted: what cannot be seen is told in `degraded`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from coworkd.model.errors import Unavailable
from coworkd.model.folder import Asked, Changed, DeleteRule, FolderChange
from coworkd.model.ports import CallerDirectory, EventPort, MountedFolder
from coworkd.services.activity import Activity
from coworkd.services.activity_folding import Author
from coworkd.services.approvals import Approvals
from coworkd.services.guarding_callers import AGAIN_S, Callers
from coworkd.services.guarding_channel import Channel
from coworkd.services.guarding_trees import Trees

ASK_SLACK_S = 30.0
"""How much longer than a person a file system waits: whoever is there to answer does so first."""
_log = logging.getLogger("coworkd.folder")


class Guarding:
    """Implements `ports.GuardPort`. `serve` runs it; `attach` before use."""

    def __init__(
        self, *, approvals: Approvals, activity: Activity, trees: Trees, callers: Callers, events: EventPort
    ) -> None:
        self._approvals = approvals
        self._activity = activity
        self._trees = trees
        self._callers = callers
        self._events = events
        self._channels: dict[tuple[str, str], Channel] = {}
        self._on_failed: Callable[[str, str, str], None] = lambda session, folder, reason: None
        self._nursery: trio.Nursery | None = None

    def attach(self, processes: CallerDirectory, on_failed: Callable[[str, str, str], None]) -> None:
        """Who knows the commands, and who is told of a folder whose file system has ended: session, name, reason."""
        self._callers.attach(processes)
        self._on_failed = on_failed

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns. Cancelled, it lets go and decides nothing."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self._activity.serve)
                await self._nursery.start(self._approvals.serve)
                await self._nursery.start(self._trees.serve)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    # -- ports.GuardPort ------------------------------------------------------------------------------------------

    async def watch(self, session: str, folder: str, mounted: MountedFolder, source: bytes, mode: str, /) -> None:
        """See `ports.GuardPort`; `source` is the directory that changes are made in, of a staged folder its own."""
        before = self._channels.pop((session, folder), None)
        if before is not None:
            self._approvals.ended(before)
            await before.release()
        if mounted.socket is not None:
            await self._listen(session, folder, mounted.socket)
        elif mode != "ro":
            await self._trees.watch(session, folder, source, staged=mode == "staged")

    async def set_mode(self, session: str, folder: str, mode: str, ask: bool, /) -> None:
        """See `ports.GuardPort`."""
        channel = self._channels.get((session, folder))
        if channel is None or not channel.is_there:
            raise Unavailable(f"the file system of folder {folder!r} has ended; mount the folder anew", folder=folder)
        deletes: DeleteRule = "allow" if mode == "rwd" else "ask" if ask else "deny"
        self._approvals.renew(channel)
        await channel.rule(deletes, self._approvals.timeout_s + ASK_SLACK_S)

    def unwatch(self, session: str, folder: str, /) -> None:
        """See `ports.GuardPort`."""
        self._trees.unwatch(session, folder)
        channel = self._channels.get((session, folder))
        if channel is not None:
            channel.let_go()
            self._approvals.ended(channel)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _listen(self, session: str, folder: str, fd: int) -> None:
        channel = Channel(
            session,
            folder,
            fd,
            on_changed=self._changed,
            on_asked=self._asked,
            on_withdrawn=self._approvals.withdrawn,
            on_end=self._ended,
        )
        if self._nursery is None:
            channel.close()
            return
        self._channels[session, folder] = channel
        await self._nursery.start(self._serve_channel, channel)

    async def _serve_channel(
        self, channel: Channel, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await channel.serve(task_status=task_status)
        key = (channel.session, channel.folder)
        if self._channels.get(key) is channel:
            del self._channels[key]

    def _changed(self, channel: Channel, changed: Changed) -> None:
        if changed.lost:
            self._activity.lost(channel.session, channel.folder, changed.lost)
            self._approvals.replaced(channel, b"")
        for change in changed.changes:
            if change.change in ("rename", "link"):
                self._approvals.replaced(channel, change.to if change.change == "rename" else change.path)
        nobodys = [change for change in changed.changes if not self._tell(channel, change)]
        if nobodys and self._nursery is not None:
            self._nursery.start_soon(self._tell_again, channel, nobodys)

    async def _tell_again(self, channel: Channel, changes: list[FolderChange]) -> None:
        try:
            await trio.sleep(AGAIN_S)
        finally:
            for change in changes:
                self._tell(channel, change, at_last=True)

    def _tell(self, channel: Channel, change: FolderChange, *, at_last: bool = False) -> bool:
        """Tell it with who did it; False where nobody knows yet, and it is not told. `at_last` it is, whoever did it."""
        caller = self._callers.find(channel.session, change.pid, change.at)
        if caller.process is None and not at_last:
            return False
        author = Author(channel.folder, caller.process)
        self._activity.changed(channel.session, author, change, inferred=caller.inferred)
        return True

    def _asked(self, channel: Channel, asked: Asked) -> None:
        caller = self._callers.find(channel.session, asked.pid, asked.at, waits=True)
        self._approvals.asked(channel, asked, caller.process)

    def _ended(self, channel: Channel, reason: str) -> None:
        session, folder = channel.session, channel.folder
        said = f"its file system has ended: {reason}"
        _log.error("folder %s of session %s: %s", folder, session, said)
        self._approvals.ended(channel)
        self._events.publish("folder.failed", {"session": session, "name": folder, "error": said})
        self._on_failed(session, folder, said)
