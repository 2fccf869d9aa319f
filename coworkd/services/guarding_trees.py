"""The watch worker, from coworkd: told which folders to look at, and what it sees becomes activity of the session that did it.

Rules
- One worker for all, started at the first folder, started anew when it has died (`PAUSES_S` apart) and told everything again; what went by
  meanwhile is told as lost.
- A change counts for a session where the process that made it is one of that session's. What the host does in its own directory is not
  told. Of a process that is gone already, or that the kernel does not name, the one command that ran there then is taken for it.
- What is nobody's is asked for once more, `AGAIN_S` later.
- A folder waits at most `WATCH_S` to be watched; then it is mounted all the same, and watched as soon as the worker answers.
- What cannot be seen is said to `on_state`, in one sentence.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import msgspec
import trio

from coworkd.model.errors import CoworkError
from coworkd.model.ports import FolderLauncherPort
from coworkd.model.watch import (
    FromWatcher,
    Missed,
    NotWatched,
    Seen,
    SeenChange,
    UnwatchTree,
    Watching,
    WatchTree,
)
from coworkd.services.activity import Activity
from coworkd.services.activity_folding import Author
from coworkd.services.guarding_callers import AGAIN_S, Caller, Callers
from coworkd.system.worker_link import WorkerLink

WATCH_S = 1.0
PAUSES_S = (0.1, 1.0, 5.0, 30.0)
_decoder: msgspec.msgpack.Decoder[FromWatcher] = msgspec.msgpack.Decoder(FromWatcher)
_log = logging.getLogger("coworkd.activity")


class _Watched:
    """One folder that is to be watched."""

    def __init__(self, number: int, session: str, folder: str, path: bytes, *, staged: bool) -> None:
        self.number = number
        self.session = session
        self.folder = folder
        self.path = path
        self.staged = staged
        self.problem: str | None = None
        self.answered = trio.Event()


class Trees:
    """All folders that the worker looks at. `serve` runs it."""

    def __init__(
        self,
        *,
        launcher: FolderLauncherPort,
        activity: Activity,
        callers: Callers,
        on_state: Callable[[str | None], None],
    ) -> None:
        self._launcher = launcher
        self._activity = activity
        self._callers = callers
        self._on_state = on_state
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._numbers: dict[int, _Watched] = {}
        self._last = 0
        self._link: WorkerLink[FromWatcher] | None = None
        self._nursery: trio.Nursery | None = None
        self._wanted = trio.Event()
        self._away: str | None = None
        """Why there is no worker."""

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns; the worker ends with it."""
        task_status.started()
        failures = 0
        while True:
            await self._wanted.wait()
            began = trio.current_time()
            await self._serve_worker()
            self._tell_state()
            for watched in self._watched.values():
                self._activity.lost(watched.session, watched.folder, 0)
            failures = 0 if trio.current_time() - began > PAUSES_S[-1] else failures + 1
            await trio.sleep(PAUSES_S[min(failures, len(PAUSES_S) - 1)])

    async def watch(self, session: str, folder: str, path: bytes, *, staged: bool) -> None:
        """Look at what is changed below `path`. Never fails."""
        self.unwatch(session, folder)
        self._last += 1
        watched = _Watched(self._last, session, folder, path, staged=staged)
        self._watched[session, folder] = self._numbers[watched.number] = watched
        self._wanted.set()
        if self._link is not None and self._nursery is not None:
            self._nursery.start_soon(self._ask, self._link, watched)
        with trio.move_on_after(WATCH_S):
            await watched.answered.wait()

    def unwatch(self, session: str, folder: str) -> None:
        """Look away; one that is not looked at is passed over."""
        watched = self._watched.pop((session, folder), None)
        if watched is None:
            return
        del self._numbers[watched.number]
        if not self._watched:
            self._wanted = trio.Event()
        if self._link is not None and self._nursery is not None:
            self._nursery.start_soon(self._ask_away, self._link, watched)
        self._tell_state()

    # -- the worker -----------------------------------------------------------------------------------------------

    async def _serve_worker(self) -> None:
        """Until it ends."""
        try:
            handle = await self._launcher.start_worker("watch")
        except CoworkError as error:
            self._away = f"changes in folders are not seen: {error.message}"
            self._answer_all()
            return
        link = WorkerLink(handle.socket, decoder=_decoder, on_notice=self._hear)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._listen, link, self._nursery.cancel_scope)
                self._link, self._away = link, None
                for watched in tuple(self._watched.values()):
                    self._nursery.start_soon(self._ask, link, watched)
        finally:
            link.close()
            self._link = self._nursery = None
        self._away = f"changes in folders are not seen: the watch worker has ended ({link.why}); it is started again"
        _log.error("%s", self._away)
        self._answer_all()

    async def _listen(self, link: WorkerLink[FromWatcher], scope: trio.CancelScope) -> None:
        await link.serve()
        scope.cancel()

    async def _ask(self, link: WorkerLink[FromWatcher], watched: _Watched) -> None:
        request = WatchTree(id=0, watch=watched.number, path=watched.path, staged=watched.staged)
        try:
            answer, _ = await link.ask(request)
        except ConnectionResetError:
            return
        watched.problem = _describe(watched, answer)
        if watched.problem is not None:
            _log.warning("%s", watched.problem)
        watched.answered.set()
        self._tell_state()

    async def _ask_away(self, link: WorkerLink[FromWatcher], watched: _Watched) -> None:
        try:
            await link.ask(UnwatchTree(id=0, watch=watched.number))
        except ConnectionResetError:
            return

    def _answer_all(self) -> None:
        for watched in self._watched.values():
            watched.answered.set()

    def _tell_state(self) -> None:
        problems = [] if self._away is None or not self._watched else [self._away]
        problems += [watched.problem for watched in self._watched.values() if watched.problem is not None]
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        self._on_state(problems[0] + more if problems else None)

    # -- what it tells --------------------------------------------------------------------------------------------

    def _hear(self, message: FromWatcher, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        if isinstance(message, Seen):
            nobodys = [seen for seen in message.changes if not self._hear_change(seen)]
            if nobodys and self._nursery is not None:
                self._nursery.start_soon(self._hear_again, nobodys)
        elif isinstance(message, Missed):
            for watched in self._known(message.watches):
                self._activity.lost(watched.session, watched.folder, 0)

    async def _hear_again(self, changes: list[SeenChange]) -> None:
        await trio.sleep(AGAIN_S)
        for seen in changes:
            self._hear_change(seen)

    def _hear_change(self, seen: SeenChange) -> bool:
        """Whether a command of the session did it, as far as is known."""
        watched = self._numbers.get(seen.watch)
        caller = None if watched is None else self._judge(watched.session, seen)
        if watched is None or caller is None:
            return False
        author = Author(watched.folder, caller.process)
        self._activity.changed(watched.session, author, seen.change, inferred=caller.inferred)
        return True

    def _judge(self, session: str, seen: SeenChange) -> Caller | None:
        """Who of the session did it; None where it was somebody else."""
        if seen.ancestry:
            owner = self._callers.owner(seen.ancestry)
            return Caller(owner[1]) if owner is not None and owner[0] == session else None
        caller = self._callers.guess(session, seen.change.pid, seen.change.at)
        return caller if caller.process is not None else None

    def _known(self, numbers: tuple[int, ...]) -> Iterator[_Watched]:
        return (self._numbers[number] for number in numbers if number in self._numbers)


def _describe(watched: _Watched, answer: FromWatcher) -> str | None:
    """What is not as it should be."""
    which = f"folder {watched.folder!r} of session {watched.session}"
    if isinstance(answer, NotWatched):
        return f"changes in {which} are not seen: {answer.message}"
    if isinstance(answer, Watching) and answer.by == "inotify":
        unseen = f", and not at all in {answer.unseen} of its directories" if answer.unseen else ""
        return f"changes in {which} are seen without who made them (inotify){unseen}"
    return None
