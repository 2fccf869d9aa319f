"""Approvals over fakes: a folder whose file system asks, commands that wait, and a clock that stands still but for `jump`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import trio

from coworkd.model.calls import Approval, ApprovalAnswer, ApprovalAnswered, ApprovalList
from coworkd.model.folder import Asked, Listed
from coworkd.services.approvals import Approvals
from coworkd.system.process_command import Command, Identity
from tests.unit.services import process_house
from tests.unit.services.egress_house import FakeAuditLog
from tests.unit.services.process_house import FakeEvents, FakeLink

EPOCH = 1_000_000.0
TIMEOUT_S = 120.0
_numbers = itertools.count(1)


class FakeFolder:
    """Implements `approvals_open.AskingFolder`: what was decided, and what lies where."""

    def __init__(self, session: str = "bob", folder: str = "f") -> None:
        self.session = session
        self.folder = folder
        self.is_there = True
        self.decided: dict[int, bool] = {}
        self.below: dict[bytes, tuple[bytes, ...]] = {}
        self.hangs = False

    def decide(self, ask: int, *, allow: bool) -> None:
        assert ask not in self.decided, "a delete is answered once"
        self.decided[ask] = allow

    async def list_below(self, path: bytes, limit: int) -> Listed:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if not self.is_there:
            raise ConnectionResetError
        found = self.below.get(path, ())
        return Listed(id=1, paths=found[:limit], more=len(found) > limit)


class ApprovalHouse:
    """The service, one folder, and commands by pid."""

    def __init__(self) -> None:
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.link = FakeLink()
        self.folder = FakeFolder()
        self.commands: dict[int, tuple[bytes, ...]] = {}
        self.approvals = Approvals(
            audit=self.audit,
            events=self.events,
            timeout_s=TIMEOUT_S,
            clock=self.clock,
            identify=self.identify,
            look=self.look,
        )

    def clock(self) -> float:
        return EPOCH + trio.current_time()

    def identify(self, pid: int) -> Identity | None:
        return Identity(pid, 1)

    def look(self, pid: int) -> Command | None:
        argv = self.commands.get(pid)
        if argv is None:
            return None
        return Command(Identity(pid, 1), argv[0], argv, False, f"/sessions/{self.folder.session}/mnt/f".encode())

    def ask(self, path: bytes, *, pid: int = 7, process: str | None = "p1", folder: FakeFolder | None = None) -> int:
        """A delete waits; its number."""
        number = next(_numbers)
        asked = Asked(ask=number, action="delete", path=path, pid=pid, at=self.clock())
        self.approvals.asked(folder or self.folder, asked, process)
        return number

    async def answer(self, answer: Any, approval: str | None = None, revision: int | None = None) -> ApprovalAnswered:
        approval = approval or (await self.open())[0].approval
        params = ApprovalAnswer(approval=approval, answer=answer, revision=revision)
        return await self.approvals.answer(params, self.link)

    async def open(self, session: str | None = None) -> tuple[Approval, ...]:
        """What is asked now."""
        return (await self.approvals.list(ApprovalList(session=session))).approvals

    def told(self, name: str) -> list[dict[str, Any]]:
        return [event.params for event in self.events.published if event.name == name]


@contextlib.asynccontextmanager
async def approval_house() -> AsyncIterator[ApprovalHouse]:
    house = ApprovalHouse()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.approvals.serve)
        yield house
        nursery.cancel_scope.cancel()


async def settle() -> None:
    """Let everything that can happen now happen, the looks at a command that threads take included."""
    await process_house.settle_threads()


async def gathered() -> None:
    """Let a question be told: it waits for what comes with it."""
    await settle()
    clock = trio.lowlevel.current_clock()
    clock.jump(0.6)  # type: ignore[attr-defined]  # tests run on a MockClock
    await settle()
