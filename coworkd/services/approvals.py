"""Approvals: deletes of what a session has not made wait here for a person.

Rules
- What waits at the same time, of one process in one folder, is one question. It is told once the audit log has it, `GATHER_S` after its
  first delete, and told again when its list grows, at most every `GROWTH_S`. Of rm and its like the list has what the same command is
  about to delete (`approvals_command`).
- `once` allows what was shown: what waits, and for `ONCE_S` what is listed, by the command it was listed for. A directory with more below
  than can be listed is allowed with all below. What the session puts at a name later, by a rename or a link, is not. `session` allows
  every delete in this folder until it is mounted anew; each is still recorded. `deny` refuses what waits, and what is listed for
  `DENIED_S`.
- An answer counts once, and is in the audit log before anything is deleted; what came after what its giver saw is asked about anew.
- Nobody answers: after `timeout_s` it is refused, and so is all that cannot be asked: a log that refuses the question, more than
  `OPEN_LIMIT` questions of a session, or more often than `approvals_grants.Pace` lets it. That is told, and not for each.
- Where coworkd ends, what waits goes on waiting, and is told anew by the folder's file system to the next one; there it ends by itself.

Whether a delete is asked about at all is the folder's rule.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import trio

from coworkd.model import calls
from coworkd.model.errors import CoworkError, InvalidParams, InvalidState, NotFound
from coworkd.model.folder import Asked
from coworkd.model.ports import AuditPort, EventPort, LinkPort
from coworkd.sandbox.tree import folder_path
from coworkd.services.approvals_command import PATHS, parse_deletes
from coworkd.services.approvals_grants import Grants, Pace
from coworkd.services.approvals_open import EVENT_BYTES, Ask, AskingFolder, Listing, OpenApproval
from coworkd.system.process_command import Command, Identity, read_command, read_identity

OPEN_LIMIT = 100
GATHER_S = 0.05
GROWTH_S = 0.5
LOOK_S = 1.0
"""What looking at one command may take; it is asked about without a list then."""
LIST_S = 2.0
COMMANDS = 32
"""How many commands of one question are looked at."""
CLOSED_KEPT = 256
ANSWERS_BYTES = 2 * 1024 * 1024
"""Of one answer of `approval.list`."""
Answer = Literal["once", "session", "deny"]
_log = logging.getLogger("coworkd.approval")


class Approvals:
    """The questions that are open, and the verbs `approval.*`. `serve` runs what attends to them."""

    def __init__(
        self,
        *,
        audit: AuditPort,
        events: EventPort,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
        identify: Callable[[int], Identity | None] = read_identity,
        look: Callable[[int], Command | None] = read_command,
    ) -> None:
        self.timeout_s = timeout_s
        self._audit = audit
        self._events = events
        self._clock = clock
        self._identify = identify
        self._look = look
        self._open: dict[str, OpenApproval] = {}
        self._joinable: dict[tuple[AskingFolder, str | None], OpenApproval] = {}
        """Those that what comes now can join: told to nobody yet, or not answered."""
        self._asks: dict[tuple[AskingFolder, int], OpenApproval] = {}
        self._closed: OrderedDict[str, str] = OrderedDict()
        """Id → how it ended, of the last ones."""
        self._grants = Grants()
        self._pace = Pace()
        self._refused: Counter[tuple[str, str, str]] = Counter()
        """By session, folder and reason: what was refused without being asked about, and is still to be told."""
        self._refusing = trio.Event()
        self._threads = trio.CapacityLimiter(4)
        self._nursery: trio.Nursery | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Never returns. Cancelled, it answers nothing: what waits is told to the next coworkd."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await self._tell_refused()
        finally:
            self._nursery = None

    @property
    def waiting(self) -> int:
        """How many deletes wait for an answer."""
        return len(self._asks)

    # -- from the folders' file systems ---------------------------------------------------------------------------

    def asked(self, asking: AskingFolder, asked: Asked, process: str | None) -> None:
        """A delete waits; told twice, it counts once."""
        if (asking, asked.ask) in self._asks or self._nursery is None:
            return
        identity = self._identify(asked.pid) if asked.pid else None
        known = self._grants.look(asking, identity, asked.path)
        if known is None:
            self._join(asking, Ask(asked.ask, asked.path, identity, asked.was), process, asked.at)
        else:
            asking.decide(asked.ask, allow=known)

    def withdrawn(self, asking: AskingFolder, number: int) -> None:
        """It does not wait any more: who asked was interrupted, or the file system has refused it."""
        approval = self._asks.pop((asking, number), None)
        if approval is None:
            return
        approval.withdraw(number)
        if not approval.waiting() and approval.answer is None:
            self._close(approval, "withdrawn")

    def ended(self, asking: AskingFolder) -> None:
        """The folder is unmounted, or its file system has ended: what waited is refused by that."""
        for approval in [approval for approval in self._open.values() if approval.asking is asking]:
            if approval.answer is None:
                self._close(approval, "ended")
        for key in [key for key in self._asks if key[0] is asking]:
            del self._asks[key]
        self._grants.drop(asking)

    def replaced(self, asking: AskingFolder, path: bytes) -> None:
        """The session has put something else at `path`, by a rename or a link; `b""`: nobody knows where."""
        self._grants.replaced(asking, path)
        for approval in self._open.values():
            if approval.asking is asking:
                approval.replace(path)

    def renew(self, asking: AskingFolder) -> None:
        """Another rule holds in the folder from now on: what was answered for later holds no more."""
        self._grants.drop(asking)

    # -- verbs ----------------------------------------------------------------------------------------------------

    async def list(self, params: calls.ApprovalList) -> calls.Approvals:
        """The questions that are open, oldest first."""
        found: list[calls.Approval] = []
        left = ANSWERS_BYTES
        for approval in self._open.values():
            if params.session in (None, approval.session) and approval.revision and approval.answer is None:
                described = approval.describe(max(1024, min(left, 256 * 1024)))
                left -= sum(len(path) + 8 for path in described.paths)
                found.append(described)
        return calls.Approvals(approvals=tuple(found))

    async def answer(self, params: calls.ApprovalAnswer, link: LinkPort) -> calls.ApprovalAnswered:
        """Answer a question. Raises `NotFound`, `InvalidState` where it was answered already, `DiskFailed`: it is open still then."""
        approval = self._find(params.approval)
        revision = approval.revision if params.revision is None else params.revision
        if not 1 <= revision <= approval.revision:
            raise InvalidParams(
                f"revision is 1 to {approval.revision} of approval {approval.id}, not {revision}", key="revision"
            )
        if self._joinable.get(approval.key) is approval:
            del self._joinable[approval.key]
        approval.answer = params.answer
        try:
            with trio.CancelScope(shield=True):
                await self._record_answer(approval, params.answer, link.name)
        except CoworkError as error:
            if params.answer != "deny":
                self._reopen(approval)
                raise
            # To refuse is safe without a record; to hold back a refusal would be worse.
            _log.error("the refusal of approval %s is not in the audit log: %s", approval.id, error.message)
        return calls.ApprovalAnswered(count=self._apply(approval, params.answer, revision))

    def _reopen(self, approval: OpenApproval) -> None:
        """Its answer could not be recorded, and is none."""
        approval.answer = None
        if not approval.asking.is_there:
            self._close(approval, "ended")
        elif not approval.waiting():
            self._close(approval, "withdrawn")
        elif approval.is_over:
            self._close(approval, "timeout")
        else:
            self._joinable.setdefault(approval.key, approval)

    def _find(self, id: str) -> OpenApproval:
        approval = self._open.get(id)
        if approval is not None and approval.answer is None:
            return approval
        how = approval.answer if approval is not None else self._closed.get(id)
        if how is None:
            raise NotFound(f"there is no approval {id!r}; list those that are open", approval=id)
        said = {
            "timeout": "nobody answered in time, and it was refused",
            "withdrawn": "the command does not wait any more",
            "ended": "its folder is not mounted any more",
            "unrecorded": "it could not be recorded, and was refused",
        }
        raise InvalidState(f"approval {id} is closed: {said.get(how, f'it was answered with {how}')}", approval=id)

    # -- one question ---------------------------------------------------------------------------------------------

    def _join(self, asking: AskingFolder, ask: Ask, process: str | None, at: float) -> None:
        approval = self._joinable.get((asking, process))
        if approval is None:
            reason = self._refusal(asking.session)
            if reason is not None:
                asking.decide(ask.number, allow=False)
                self._refused[asking.session, asking.folder, reason] += 1
                self._refusing.set()
                return
            approval = self._begin(asking, process, at)
        self._asks[asking, ask.number] = approval
        approval.add(ask)

    def _refusal(self, session: str) -> str | None:
        if sum(approval.session == session for approval in self._open.values()) >= OPEN_LIMIT:
            return f"{OPEN_LIMIT} questions of this session are open already"
        return None if self._pace.take(session) else "this session asks too often"

    def _begin(self, asking: AskingFolder, process: str | None, at: float) -> OpenApproval:
        # One that waits since before a restart of ours has waited for some of its time.
        asked_at = max(min(at, self._clock()), self._clock() - self.timeout_s)
        approval = OpenApproval(
            f"a{secrets.token_hex(5)}", asking, process, asked_at=asked_at, expires_at=asked_at + self.timeout_s
        )
        self._open[approval.id] = self._joinable[approval.key] = approval
        self._later(self._attend, approval)
        return approval

    async def _attend(self, approval: OpenApproval) -> None:
        """Tell it, as often as it grows, until it is answered or its time is over."""
        with approval.scope:
            with trio.move_on_after(approval.expires_at - self._clock()):
                pause_s = GATHER_S
                while True:
                    await approval.grown.wait()
                    await trio.sleep(pause_s)
                    approval.grown = trio.Event()
                    await self._look_at(approval)
                    if approval.untold and not await self._tell(approval):
                        break
                    pause_s = GROWTH_S
            self._give_up(approval, "timeout")

    async def _look_at(self, approval: OpenApproval) -> None:
        """See what the commands that wait are about to delete."""
        room = COMMANDS - len(approval.listings())
        for identity in approval.unseen[: max(0, room)]:
            command: Command | None = None
            with trio.move_on_after(LOOK_S):
                command = await trio.to_thread.run_sync(
                    self._look, identity.pid, limiter=self._threads, abandon_on_cancel=True
                )
            if command is None or command.identity != identity:
                approval.add_listing(identity, Listing(()))
            else:
                approval.add_listing(identity, await self._list(approval, command))

    async def _list(self, approval: OpenApproval, command: Command) -> Listing:
        folder = folder_path(approval.session, approval.folder)
        deletes = parse_deletes(command.argv, command.name, command.directory, folder)
        if deletes is None:
            return Listing(command.argv)
        more = command.is_cut
        if not deletes.recursive:
            return Listing(command.argv, _without_top(deletes.paths), more=more)
        paths: dict[bytes, None] = {}
        with trio.move_on_after(LIST_S) as scope:
            for path in deletes.paths:
                # One question's bound, whichever of its commands names them.
                room = PATHS - len(paths) - len(approval.paths())
                if room <= 0:
                    more = True
                    break
                try:
                    listed = await approval.asking.list_below(path, room)
                except ConnectionResetError:
                    break
                paths.update(dict.fromkeys((*listed.paths, path)))
                more = more or listed.more
        more = more or scope.cancelled_caught
        # What was not looked at is on the list all the same, by its name.
        paths.update(dict.fromkeys(deletes.paths))
        return Listing(command.argv, _without_top(paths), deletes.paths if more else (), more)

    async def _tell(self, approval: OpenApproval) -> bool:
        """Record it, then tell it; False where it cannot be recorded, and it is refused then."""
        paths = approval.paths()
        fields: dict[str, Any] = {
            **_who(approval),
            "name": approval.folder,
            "action": "delete",
            "paths": paths,
            "count": len(paths),
            "argv": approval.describe().command or None,
        }
        untold = approval.untold
        try:
            await self._audit.record("approval.request", fields)
        except CoworkError as error:
            _log.error("approval %s is refused, its question cannot be recorded: %s", approval.id, error.message)
            self._give_up(approval, "unrecorded")
            return False
        approval.tell(untold)
        if approval.answer is None:
            self._events.publish("approval.requested", _params(approval))
        return True

    def _give_up(self, approval: OpenApproval, how: str) -> None:
        """Close it, but where somebody answers right now, or has."""
        approval.is_over = True
        if approval.answer is None:
            self._close(approval, how)

    def _apply(self, approval: OpenApproval, answer: Answer, revision: int) -> int:
        """What follows from an answer that is recorded; how many that waited were answered."""
        asking = approval.asking
        answered = approval.waiting(revision if answer == "once" else None)
        done: defaultdict[Identity | None, set[bytes]] = defaultdict(set)
        for ask in answered:
            done[ask.identity].add(ask.path)
        if answer != "deny":
            self._pace.give_back(approval.session)
        if answer == "session" and asking.is_there:
            self._grants.allow_folder(asking)
        elif asking.is_there:
            for identity, listing in approval.listings(revision).items():
                if listing.paths or listing.trees:
                    allow = answer == "once"
                    paths = frozenset(listing.paths) - (done[identity] if allow else frozenset())
                    self._grants.add(asking, identity, allow=allow, paths=paths, trees=listing.trees)
        for path in approval.replaced:
            self._grants.replaced(asking, path)
        left = [ask for ask in approval.waiting() if ask not in answered]
        self._end(approval, answer, count=len(answered))
        for ask in answered:
            self._asks.pop((asking, ask.number), None)
            asking.decide(ask.number, allow=answer != "deny")
        for ask in left:
            self._asks.pop((asking, ask.number), None)
            self._join(asking, ask, approval.process, self._clock())
        return len(answered)

    def _close(self, approval: OpenApproval, how: str) -> None:
        """It ends without an answer: what waits is refused."""
        waiting = approval.waiting()
        approval.answer = how
        self._end(approval, how, count=len(waiting))
        for ask in waiting:
            self._asks.pop((approval.asking, ask.number), None)
            approval.asking.decide(ask.number, allow=False)
        if approval.revision:
            self._later(self._record_close, approval, how)

    def _end(self, approval: OpenApproval, how: str, *, count: int) -> None:
        del self._open[approval.id]
        if self._joinable.get(approval.key) is approval:
            del self._joinable[approval.key]
        approval.scope.cancel()
        self._closed[approval.id] = how
        if len(self._closed) > CLOSED_KEPT:
            self._closed.popitem(last=False)
        if approval.revision:
            self._events.publish(
                "approval.closed", {**_who(approval), "folder": approval.folder, "answer": how, "count": count}
            )

    # -- records --------------------------------------------------------------------------------------------------

    async def _record_answer(self, approval: OpenApproval, answer: str, link: str | None) -> None:
        fields = {**_who(approval), "name": approval.folder, "answer": answer, "count": len(approval.waiting())}
        await self._audit.record("approval.answer", {**fields, "link": link})

    async def _record_close(self, approval: OpenApproval, how: str) -> None:
        try:
            await self._record_answer(approval, how, None)
        except CoworkError as error:
            _log.error("the end of approval %s (%s) is not in the audit log: %s", approval.id, how, error.message)

    async def _tell_refused(self) -> None:
        """What was refused without being asked about is told once a second. Never returns."""
        while True:
            await self._refusing.wait()
            self._refusing = trio.Event()
            await trio.sleep(1)
            refused, self._refused = self._refused, Counter()
            for (session, folder, reason), count in refused.items():
                self._events.publish(
                    "approval.refused", {"session": session, "folder": folder, "reason": reason, "count": count}
                )
                _log.warning("%d deletes in folder %s of session %s were refused: %s", count, folder, session, reason)
                fields = {"session": session, "name": folder, "answer": "refused", "reason": reason, "count": count}
                try:
                    await self._audit.record("approval.answer", fields)
                except CoworkError as error:
                    _log.error("refused deletes are not in the audit log: %s", error.message)

    def _later(self, task: Callable[..., Any], *arguments: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(partial(task, *arguments))


def _without_top(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """The folder itself cannot be deleted: it is a mount."""
    return tuple(path for path in paths if path)


def _who(approval: OpenApproval) -> dict[str, Any]:
    return {"approval": approval.id, "session": approval.session, "process": approval.process}


def _params(approval: OpenApproval) -> dict[str, Any]:
    """Of `approval.requested`: as `approval.list` describes it, with fewer paths where they are long."""
    described = approval.describe(EVENT_BYTES)
    return {name: getattr(described, name) for name in described.__struct_fields__}
