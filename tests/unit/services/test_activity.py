"""`services.activity`: changes in folders, recorded and told, in bounded numbers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from coworkd.auditlog import admit
from coworkd.model.folder import ChangeKind, FolderChange
from coworkd.services.activity import BURST, HELD_LINES, WINDOW_LINES, Activity
from coworkd.services.activity_folding import Author
from tests.unit.services.egress_house import FakeAuditLog
from tests.unit.services.process_house import FakeEvents, in_trio, jump, settle

BOB = Author("f", "p1")


class _House:
    def __init__(self) -> None:
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.activity = Activity(audit=self.audit, events=self.events, clock=lambda: 5.0)

    def change(self, path: bytes, change: ChangeKind = "create", session: str = "bob", size: int = -1) -> None:
        self.activity.changed(session, BOB, FolderChange(change=change, path=path, size=size, pid=7, at=1.0))

    def count(self) -> int:
        return sum(event.params.get("count", 1) for event in self.events.published)


@contextlib.asynccontextmanager
async def _open_house() -> AsyncIterator[_House]:
    house = _House()
    async with trio.open_nursery() as nursery:
        await nursery.start(house.activity.serve)
        yield house
        nursery.cancel_scope.cancel()


async def _pass(seconds: float = 1.0) -> None:
    await settle()
    jump(seconds)
    await settle()


@in_trio
async def test_a_change_is_recorded_and_told() -> None:
    async with _open_house() as house:
        house.activity.changed(
            "bob", BOB, FolderChange(change="rename", path=b"a\xff", to=b"b\n", pid=7, at=1.0), inferred=True
        )
        await _pass()
        ((kind, fields),) = house.audit.records
        assert admit(kind, fields) == {
            "session": "bob",
            "process": "p1",
            "name": "f",
            "path": {"b64": "Yf8="},
            "change": "rename",
            "to": "b\n",
            "changed_at": 1.0,
            "inferred": True,
        }
        (event,) = house.events.published
        assert event.name == "activity"
        assert (event.params["path"], event.params["folder"], event.params["changed_at"]) == (b"a\xff", "f", 1.0)


@in_trio
async def test_what_happens_within_a_window_is_told_together() -> None:
    async with _open_house() as house:
        house.change(b"a")
        await _pass(0.5)
        house.change(b"a", "write", size=3)
        assert house.audit.records == []
        await _pass(0.5)
        assert house.audit.fields("folder.change")["size"] == 3
        house.change(b"b")
        await _pass(0.9)
        assert len(house.audit.records) == 1
        await _pass(0.1)
        assert len(house.audit.records) == 2


@in_trio
async def test_ten_thousand_files_are_a_few_hundred_records_with_a_true_count() -> None:
    async with _open_house() as house:
        for number in range(10_000):
            house.change(b"node_modules/%d/lib/%d" % (number // 20, number))
            house.change(b"node_modules/%d/lib/%d" % (number // 20, number), "write", size=1)
        for _ in range(5):
            await _pass()
        assert len(house.audit.records) <= BURST + 3 * 16 + 3
        # A window may end between the making of a file and its first write, which is a change of its own then.
        assert 10_000 <= house.count() <= 10_000 + 10_000 // WINDOW_LINES + 1
        assert len(house.events.published) == len(house.audit.records)


@in_trio
async def test_a_session_that_goes_on_gets_its_share_and_no_more() -> None:
    async with _open_house() as house:
        for turn in range(60):
            for number in range(100):
                house.change(b"%d/%d" % (turn, number))
            await _pass()
        assert len(house.audit.records) <= BURST + 60 * 17
        assert house.count() == 6000


@in_trio
async def test_one_session_takes_no_room_from_another() -> None:
    async with _open_house() as house:
        for number in range(2 * WINDOW_LINES):
            house.change(b"%d/x/%d" % (number, number))
        house.change(b"a", session="alice")
        await _pass()
        assert [event.params["path"] for event in house.events.published if event.params["session"] == "alice"] == [
            b"a"
        ]


@in_trio
async def test_a_log_that_refuses_holds_changes_back() -> None:
    async with _open_house() as house:
        house.audit.broken = 2
        house.change(b"a")
        await _pass()
        assert house.events.published == []
        for _ in range(3):
            await _pass(2)
        assert [fields["path"] for _, fields in house.audit.records] == [b"a"]
        assert len(house.events.published) == 1


@in_trio
async def test_what_finds_no_room_while_the_log_refuses_is_counted() -> None:
    async with _open_house() as house:
        house.audit.broken = 1_000_000
        sessions = HELD_LINES // 100 + 10
        for session in range(sessions):
            for number in range(100):
                house.change(b"%d" % number, session=f"s{session}")
        await _pass()
        await _pass(2)
        house.audit.broken = 0
        for _ in range(40):
            await _pass(2)
        lost = [fields["count"] for _, fields in house.audit.records if fields["change"] == "lost"]
        told = [fields for _, fields in house.audit.records if fields["change"] != "lost"]
        assert len(told) == HELD_LINES
        assert sum(lost) == sessions * 100 - HELD_LINES


@in_trio
async def test_lost_changes_are_told_as_lost() -> None:
    async with _open_house() as house:
        house.activity.lost("bob", "f", 12)
        house.activity.lost("bob", "g", 0)
        await _pass()
        told = [
            (event.params["folder"], event.params["change"], event.params["count"]) for event in house.events.published
        ]
        assert told == [("f", "lost", 12), ("g", "lost", 0)]


@in_trio
async def test_the_end_writes_what_there_is() -> None:
    async with _open_house() as house:
        house.change(b"a")
        await settle()
    assert [fields["path"] for _, fields in house.audit.records] == [b"a"]
