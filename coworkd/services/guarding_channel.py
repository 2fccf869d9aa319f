"""The conversation with one guarded folder's file system, from `watch` to `unwatch`.

Rules
- What it says is handed on in order; what it is told is its rule, decisions, and requests for a list.
- Decisions wait in a queue of their own, so that whoever decides never waits: at most one for each delete that waits, which is bounded
  by the file system.
- When it is let go of, deletes are refused from then on: nobody is there to ask. Its last users, where it was in use, are still heard.
  Where coworkd ends, nothing is said: what waits goes on waiting for the next one.
- The end of the file system is told once, by `on_end`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
import trio

from coworkd.model.errors import Unavailable
from coworkd.model.folder import (
    Asked,
    Changed,
    DeleteRule,
    FromFolder,
    ListBelow,
    Listed,
    Rule,
    Ruled,
    Verdict,
    Withdrawn,
)
from coworkd.system.worker_link import WorkerLink

RULE_S = 5.0
_FAREWELL_S = 1.0
_decoder: msgspec.msgpack.Decoder[FromFolder] = msgspec.msgpack.Decoder(FromFolder)


class Channel:
    """One folder of one session; implements `approvals_open.AskingFolder`. Owns the socket."""

    def __init__(
        self,
        session: str,
        folder: str,
        fd: int,
        *,
        on_changed: Callable[[Channel, Changed], None],
        on_asked: Callable[[Channel, Asked], None],
        on_withdrawn: Callable[[Channel, int], None],
        on_end: Callable[[Channel, str], None],
    ) -> None:
        self.session = session
        self.folder = folder
        self.is_there = True
        self.gone = trio.Event()
        """Set when the socket is closed, and nobody reads from it any more."""
        self._on_changed = on_changed
        self._on_asked = on_asked
        self._on_withdrawn = on_withdrawn
        self._on_end = on_end
        self._link = WorkerLink(fd, decoder=_decoder, on_notice=self._hear)
        self._decisions: deque[Verdict] = deque()
        self._decided = trio.Event()
        self._let_go = trio.Event()
        self._scope = trio.CancelScope()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the file system ends, or `release`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._listen)
                    nursery.start_soon(self._send_decisions)
                    task_status.started()
                    await self._let_go.wait()
                    with trio.move_on_after(_FAREWELL_S):
                        await self._ask_rule("deny", 0.0)
        finally:
            self._link.close()
            self.gone.set()

    def let_go(self) -> None:
        """Nobody asks here any more; who still uses it is heard."""
        self.is_there = False
        self._let_go.set()

    async def release(self) -> None:
        """Leave the socket to somebody else."""
        self.is_there = False
        self._scope.cancel()
        await self.gone.wait()

    def close(self) -> None:
        """Where it is never served."""
        self.is_there = False
        self._link.close()
        self.gone.set()

    # -- what it is told ------------------------------------------------------------------------------------------

    async def rule(self, deletes: DeleteRule, timeout_s: float) -> None:
        """Raises `Unavailable`."""
        ruled = False
        with trio.move_on_after(RULE_S):
            ruled = await self._ask_rule(deletes, timeout_s)
        if not ruled:
            raise Unavailable(
                f"the file system of folder {self.folder!r} does not answer; mount the folder anew", folder=self.folder
            )

    def decide(self, ask: int, *, allow: bool) -> None:
        """See `approvals_open.AskingFolder`."""
        if self.is_there:
            self._decisions.append(Verdict(ask=ask, allow=allow))
            self._decided.set()

    async def list_below(self, path: bytes, limit: int) -> Listed:
        """See `approvals_open.AskingFolder`."""
        answer, _ = await self._link.ask(ListBelow(id=0, path=path, limit=limit))
        if not isinstance(answer, Listed):
            raise ConnectionResetError(f"it answered with {type(answer).__name__}")
        return answer

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._link.serve(task_status=task_status)
        if self.is_there:
            self.is_there = False
            self._on_end(self, self._link.why or "it has ended")
        self._scope.cancel()

    async def _ask_rule(self, deletes: DeleteRule, timeout_s: float) -> bool:
        try:
            answer, _ = await self._link.ask(Rule(id=0, deletes=deletes, ask_timeout_s=timeout_s))
        except ConnectionResetError:
            return False
        return isinstance(answer, Ruled)

    async def _send_decisions(self) -> None:
        """In the order they were made. Never returns."""
        while True:
            await self._decided.wait()
            self._decided = trio.Event()
            while self._decisions:
                try:
                    await self._link.tell(self._decisions[0])
                except ConnectionResetError:
                    return
                self._decisions.popleft()

    def _hear(self, message: FromFolder, fds: list[int]) -> None:
        if isinstance(message, Changed):
            self._on_changed(self, message)
        elif isinstance(message, Asked) and self.is_there:
            self._on_asked(self, message)
        elif isinstance(message, Withdrawn) and self.is_there:
            self._on_withdrawn(self, message.ask)
