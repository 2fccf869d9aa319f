"""The `measure` worker, from coworkd: asked for what trees take, to prune them, and to give them to another uid.

Rules
- One worker, started when it is needed and again when it has died; a request whose worker dies is told as `Unavailable`, and asking
  again goes on from there. It is let go after a while without work.
- One request at a time: whoever comes later waits. It is slow work of low priority, and bounded by its own deadlines.
"""

from __future__ import annotations

import logging
from typing import TypeVar

import msgspec
import trio

from coworkd.model.errors import DiskFailed, Unavailable
from coworkd.model.measure import (
    MeasureAnswer,
    MeasureRequest,
    MeasureTree,
    PruneTree,
    ReownTree,
    TreeFailed,
    TreeMeasured,
    TreePruned,
    TreeReowned,
)
from coworkd.model.ports import FolderLauncherPort
from coworkd.system.worker_link import WorkerLink

MEASURE_DEADLINE_S = 60.0
PRUNE_DEADLINE_S = 300.0
_IDLE_S = 120.0
_log = logging.getLogger("coworkd.session")
_decoder: msgspec.msgpack.Decoder[MeasureAnswer] = msgspec.msgpack.Decoder(MeasureAnswer)
_A = TypeVar("_A", TreeMeasured, TreePruned, TreeReowned)
Place = tuple[str, str]
"""A directory of coworkd's own, and the path below it that a session's things have."""


class Measuring:
    """`serve` owns the worker's link; before that and after its end every request is `Unavailable`."""

    def __init__(self, launcher: FolderLauncherPort) -> None:
        self._launcher = launcher
        self._nursery: trio.Nursery | None = None
        self._link: WorkerLink[MeasureAnswer] | None = None
        self._turn = trio.Lock()
        self._uses = 0

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns; the worker ends with it."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    uses = self._uses
                    await trio.sleep(_IDLE_S)
                    if uses == self._uses and not self._turn.locked():
                        self._let_go()
        finally:
            self._nursery = None
            self._let_go()

    async def measure(self, place: Place, *, deadline_s: float = MEASURE_DEADLINE_S) -> TreeMeasured:
        """What it takes now. Raises `DiskFailed`, `Unavailable`."""
        root, path = _encode(place)
        return await self._ask(MeasureTree(id=0, root=root, path=path, deadline_s=deadline_s), TreeMeasured)

    async def prune(
        self,
        place: Place,
        places: tuple[bytes, ...],
        *,
        before: float,
        larger_than_bytes: int,
        dry_run: bool,
        limit: int,
    ) -> TreePruned:
        """Delete what lies in `places` and is as said, or tell what would go. Raises `DiskFailed`, `Unavailable`."""
        root, path = _encode(place)
        request = PruneTree(
            id=0,
            root=root,
            path=path,
            places=places,
            before=before,
            larger_than_bytes=larger_than_bytes,
            dry_run=dry_run,
            entry_limit=limit,
            deadline_s=PRUNE_DEADLINE_S,
        )
        return await self._ask(request, TreePruned)

    async def reown(self, place: Place, uid_from: int, uid_to: int) -> int:
        """How many entries were given. Raises `DiskFailed`, `Unavailable`; asking again goes on from there."""
        root, path = _encode(place)
        request = ReownTree(id=0, root=root, path=path, uid_from=uid_from, uid_to=uid_to)
        return (await self._ask(request, TreeReowned)).changed

    async def _ask(self, request: MeasureRequest, kind: type[_A]) -> _A:
        async with self._turn:
            self._uses += 1
            link = await self._ready()
            try:
                answer, fds = await link.ask(request)
            except ConnectionResetError as error:
                self._let_go()
                raise Unavailable(
                    "the worker that looks at the session disk has ended; try again", reason=str(error)
                ) from error
        assert not fds
        if isinstance(answer, TreeFailed):
            where = f"{request.root.decode()}/{request.path.decode()}"
            raise DiskFailed(f"{where}: {answer.message}", errno=answer.errno, path=where)
        assert isinstance(answer, kind)
        return answer

    async def _ready(self) -> WorkerLink[MeasureAnswer]:
        if self._link is not None and self._link.why is None:
            return self._link
        nursery = self._nursery
        if nursery is None:
            raise Unavailable("coworkd is not ready to look at the session disk; try again")
        handle = await self._launcher.start_worker("measure")
        self._link = WorkerLink(handle.socket, decoder=_decoder)
        if self._nursery is not nursery:
            self._let_go()
            raise Unavailable("coworkd is ending and looks at the session disk no more; ask the next one")
        await nursery.start(self._link.serve)
        _log.debug("the measure worker has pid %d", handle.pid)
        return self._link

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _encode(place: Place) -> tuple[bytes, bytes]:
    root, path = place
    return root.encode(), path.encode()
