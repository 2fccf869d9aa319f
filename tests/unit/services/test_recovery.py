"""`services.recovery`: what came over a restart is told once, and what did not as well."""

from __future__ import annotations

import logging

import pytest
import trio

from coworkd.auditlog.kinds import admit
from coworkd.model.launch import TakenOver
from coworkd.model.restart import Adoption, Restarted
from coworkd.services.recovery import Recovery
from tests.unit.services.process_house import NOW, FakeAudit, FakeEvents

SECOND = TakenOver(id=1, supervisors_before=1, sessions=("work", "play"))
ADOPTION = Adoption(running=3, ended=2, one_shots=1)
ALL_WELL = Restarted(at=NOW, took_s=0.5, running=3, ended=2, one_shots=1, sessions=2, approvals=4, lost=())


class House:
    def __init__(self) -> None:
        self.audit, self.events = FakeAudit(), FakeEvents()
        self.recovery = Recovery(audit=self.audit, events=self.events, clock=lambda: NOW)

    def tell(
        self, before: TakenOver | None = SECOND, adoption: Adoption = ADOPTION, not_reopened: tuple[str, ...] = ()
    ) -> None:
        async def run() -> None:
            await self.recovery.tell(before, adoption, not_reopened=not_reopened, approvals=4, took_s=0.5)

        trio.run(run)


@pytest.mark.parametrize("before", [None, TakenOver(id=1, supervisors_before=0, sessions=())])
def test_the_first_of_a_boot_has_nothing_to_tell(before: TakenOver | None) -> None:
    house = House()
    house.tell(before)
    assert (house.recovery.restarted, house.audit.kinds, house.events.published) == (None, [], [])
    assert house.recovery.findings() == ()


def test_what_came_over_is_recorded_published_and_found() -> None:
    house = House()
    house.tell()
    assert house.recovery.restarted == ALL_WELL
    fields = house.audit.fields("daemon.recovered")
    admit("daemon.recovered", fields)
    assert (fields["running"], fields["approvals"], fields["lost"]) == (3, 4, ())
    (event,) = house.events.published
    assert (event.name, event.params["sessions"]) == ("restarted", 2)
    (finding,) = house.recovery.findings()
    assert finding.state == "ok"
    assert "lost: nothing" in finding.detail


def test_what_was_lost_is_said_in_words(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    with caplog.at_level(logging.WARNING, logger="coworkd.app"):
        house.tell(adoption=Adoption(unread_notes=2), not_reopened=("work",))
    assert house.recovery.restarted is not None
    assert house.recovery.restarted.lost == (
        "session work could not be taken over",
        "the deadlines of 2 commands are not known any more",
    )
    assert "work could not be taken over" in caplog.text
    (finding,) = house.recovery.findings()
    assert finding.state == "degraded"


def test_the_first_with_a_launcher_tells_who_was_lost_with_the_one_before() -> None:
    house = House()
    lost = [f"p{number}" for number in range(20)]
    house.tell(TakenOver(id=1, supervisors_before=0, sessions=()), Adoption(lost=lost, unsearched=True))
    assert house.recovery.restarted is not None
    admit("daemon.recovered", house.audit.fields("daemon.recovered"))
    named, unknown = house.recovery.restarted.lost
    assert named.startswith("20 commands, with the launcher before: p0, p1,")
    assert named.endswith("p15 and 4 more")
    assert "not wholly known" in unknown


def test_a_log_that_refuses_keeps_nobody_from_hearing_it() -> None:
    house = House()
    house.audit.full.add("daemon.recovered")
    house.tell()
    assert house.recovery.restarted == ALL_WELL
    assert [event.name for event in house.events.published] == ["restarted"]
