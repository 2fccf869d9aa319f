from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from coworkd.auditlog import admit
from coworkd.services.egress_records import LOST, EgressRecords, compose_record
from tests.unit.services.egress_house import FakeAuditLog, event
from tests.unit.services.process_house import FakeEvents, in_trio, jump, settle


class Room:
    def __init__(self) -> None:
        self.audit = FakeAuditLog()
        self.events = FakeEvents()
        self.acknowledged: list[int] = []
        self.records = EgressRecords(audit=self.audit, events=self.events, clock=lambda: 1000.0)

    async def acknowledge(self, through: int) -> None:
        self.acknowledged.append(through)


@asynccontextmanager
async def open_room() -> AsyncIterator[Room]:
    room = Room()
    room.records.begin(77)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.records.serve, room.acknowledge)
        yield room
        nursery.cancel_scope.cancel()


def test_every_kind_of_event_is_a_record_the_log_admits() -> None:
    for kind in ("open", "refused", "close", "request"):
        admit(
            *compose_record(
                event(1, kind, rule="r", reason="x", address="198.51.100.2", count=3, method="GET", path="/")
            )
        )


@in_trio
async def test_what_is_durable_is_acknowledged_and_published_in_order() -> None:
    async with open_room() as room:
        room.records.told((event(1), event(2, "refused", reason="no")))
        room.records.told((event(3, "close", sent_bytes=5, received_bytes=7, took_s=0.5),))
        await settle()
        assert room.acknowledged[-1] == 3
        assert room.audit.kinds == ["egress.decision", "egress.decision", "egress.close"]
        assert [(each.name, each.params.get("allowed")) for each in room.events.published] == [
            ("egress.decision", True),
            ("egress.decision", False),
            ("egress.close", None),
        ]


@in_trio
async def test_nothing_is_acknowledged_that_is_not_durable() -> None:
    async with open_room() as room:
        room.audit.broken = 1
        room.records.told((event(1),))
        await settle()
        assert (room.acknowledged, room.events.published, room.records.unrecorded) == ([], [], 1)
        jump(1)
        await settle()
        assert (room.acknowledged, room.records.unrecorded) == ([1], 0)


@in_trio
async def test_what_is_told_again_is_not_written_again() -> None:
    async with open_room() as room:
        room.records.told((event(1), event(2)))
        await settle()
        room.records.begin(77)
        assert room.records.durable == 2
        room.records.told((event(2), event(3)))
        await settle()
        assert len(room.audit.records) == 3


@in_trio
async def test_what_one_told_that_died_is_written_and_not_acknowledged_to_the_next() -> None:
    async with open_room() as room:
        room.audit.broken = 1
        room.records.told((event(8),))
        await settle()
        room.records.begin(78)
        room.records.told((event(1),))
        jump(1)
        await settle()
        assert room.audit.kinds == ["egress.decision", "egress.close", "egress.decision"]
        assert room.acknowledged == [1]


@in_trio
async def test_each_open_of_one_that_died_has_its_close() -> None:
    async with open_room() as room:
        room.records.told((event(1), event(2, connection=2, at=990.0, host="other.example"), event(3, "close")))
        await settle()
        room.audit.broken = 1
        room.records.begin(78)
        room.records.told((event(1, connection=1),))
        await settle()
        jump(1)
        await settle()
        assert room.audit.kinds == [
            "egress.decision",
            "egress.decision",
            "egress.close",
            "egress.close",
            "egress.decision",
        ]
        _, lost = room.audit.records[3]
        assert (lost["connection"], lost["host"], lost["reason"], lost["took_s"]) == (2, "other.example", LOST, 10.0)
        assert room.acknowledged == [3, 1]
        room.records.begin(78)  # the same one again
        await settle()
        assert len(room.audit.records) == 5


@in_trio
async def test_what_was_open_before_this_coworkd_is_known_by_the_log() -> None:
    async with open_room() as room:
        log = [
            ("egress.begin", {"pid": 70}),
            compose_record(event(1, connection=9, session="bob")),
            ("egress.begin", {"pid": 77}),
            compose_record(event(1, connection=1, session="bob")),
            compose_record(event(2, connection=2, session="bob")),
            compose_record(event(3, connection=3, session="bob")),
            compose_record(event(0, "close", connection=2, reason=LOST)),
            compose_record(event(4, "close", connection=3)),
            compose_record(event(5, "refused", connection=4)),
            ("egress.begin", {"pid": 77}),
        ]
        room.audit.records += log
        room.records.expect("bob")
        find = room.audit.find

        async def slow(**asked: Any) -> Any:
            found = await find(**asked)
            room.records.told((event(6, "close", connection=1), event(7, connection=5)))
            return found

        room.audit.find = slow  # type: ignore[method-assign]
        await room.records.recall()
        await settle()
        (bob,) = room.records.counts()
        assert (bob.connections, bob.connections_total) == (2, 1)
        room.records.begin(78)
        await settle()
        lost = [fields["connection"] for kind, fields in room.audit.records[len(log) :] if fields.get("reason") == LOST]
        assert lost == [2, 5]


@in_trio
async def test_what_is_recorded_at_once_is_bounded() -> None:
    async with open_room() as room:
        room.records.told(tuple(event(number) for number in range(1, 601)))
        await settle()
        assert room.acknowledged == [256, 512, 600]


@in_trio
async def test_sums_are_kept_by_session() -> None:
    async with open_room() as room:
        for session in ("bob", "eve"):
            room.records.expect(session)
        room.records.told((event(1), event(2, "refused", count=4), event(3, session="eve", connection=2)))
        room.records.told((event(4, "close", sent_bytes=5, received_bytes=7),))
        await settle()
        bob, eve = room.records.counts()
        assert (bob.session, bob.connections, bob.connections_total, bob.refused_total) == ("bob", 0, 1, 4)
        assert (bob.sent_bytes, bob.received_bytes) == (5, 7)
        assert eve.connections == 1
        room.records.begin(99)
        await settle()
        assert [each.connections for each in room.records.counts()] == [0, 0]
        room.records.forget("eve")
        assert [each.session for each in room.records.counts()] == ["bob"]
