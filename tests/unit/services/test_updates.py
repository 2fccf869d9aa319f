"""Updates as a service: what is run, what is taken, what is refused, and who says when it may stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec import structs

from coworkd.model import calls_update, update
from coworkd.model.errors import CoworkError, DiskFailed, InvalidState, NotFound, Unavailable
from coworkd.release.slots import SlotState
from coworkd.services.updates import GIVE_UP_S, SlotRun, UpdateFacts, Updates
from coworkd.services.updates_state import SlotStates
from tests.unit.services.process_house import FakeAudit, FakeEvents, in_trio, jump, settle

TRUST = update.Trust(keys=b"k", architecture="x86_64", python="3.11", image_version="1.0")


class FakeWorker:
    """Implements `updates_worker.UpdatePort`: one disk, and slots that are as they should be."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.version: str | None = None
        self.refused: tuple[update.Why, str] | None = None
        self.copy_refused: tuple[update.Why, str] | None = None
        self.bad_slots: dict[str, tuple[update.Why, str]] = {}
        self.broken: CoworkError | None = None

    def offer(self, version: str) -> None:
        self.version = version

    async def look_at_disk(self, ask: update.LookAtDisk, /) -> update.DiskOffer:
        await trio.lowlevel.checkpoint()
        self.trace.append("look" if ask.slot is None else f"copy {ask.slot} {ask.sha256}")
        if self.broken is not None:
            raise self.broken
        if self.version is None:
            return update.DiskOffer(id=1, found=False)
        made = update.DiskOffer(id=1, found=True, device=b"/dev/sda", version=self.version, lines=("mounted smol-bin",))
        refused = self.refused or (self.copy_refused if ask.slot is not None else None)
        if refused is not None:
            return structs.replace(made, why=refused[0], reason=refused[1])
        offered = update.Offered(version=self.version, sha256=f"sha-{self.version}", contents=("code",), key="KEY")
        return structs.replace(made, offered=offered, staged=ask.slot is not None)

    async def verify_slot(self, ask: update.VerifySlot, /) -> update.SlotVerified:
        await trio.lowlevel.checkpoint()
        self.trace.append(f"verify {ask.slot} {ask.sha256}")
        if self.broken is not None:
            raise self.broken
        why, reason = self.bad_slots.get(ask.slot, (None, ""))
        return update.SlotVerified(id=1, why=why, reason=reason)


class House:
    """A coworkd's updates, start after start, on one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root / "slots"
        self.worker = FakeWorker()
        self.audit = FakeAudit()
        self.events = FakeEvents()
        self.states: list[str | None] = []
        self.restarts: list[str] = []
        self.wrong: str | None = None
        self.boot = 1
        self.trust: update.Trust | None = TRUST
        self.disk_is_likely = True

    def make(self) -> Updates:
        facts = UpdateFacts(
            slots_dir=str(self.root), boot_id=f"boot-{self.boot}", image_version="1.0", version="1.0", trust=self.trust
        )
        return Updates(
            facts,
            worker=self.worker,
            events=self.events,
            on_state=self.states.append,
            may_be_there=lambda: self.disk_is_likely,
        )

    async def start(self) -> tuple[Updates, SlotRun | None]:
        """As slot 0, and then as what it execs into."""
        zero = self.make()
        run = await zero.choose()
        running = zero
        if run is not None:
            running = self.make()
            await running.resume(run)
        running.attach(self.audit, healthy=lambda: self.wrong, restart=self.restarts.append)
        return running, run

    def state(self) -> SlotState:
        return msgspec.json.decode((self.root / "state.json").read_bytes(), type=SlotState)

    @property
    def told(self) -> list[str]:
        return [event.name for event in self.events.published]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def committed(house: House, version: str) -> None:
    """Take `version` from the disk and let it stay."""
    house.worker.offer(version)
    updates, run = await house.start()
    assert run is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(updates.serve)
        await pass_time(61, until=lambda: house.told.count("update.committed") == house.told.count("update.applied"))
        nursery.cancel_scope.cancel()
    await updates.leave()


async def pass_time(seconds: float, *, until: Callable[[], bool] = lambda: True) -> None:
    """Let time pass, and what is written in threads be written."""
    await settle()
    for _ in range(8):
        jump(seconds / 8)
        await settle()
    with trio.fail_after(10 * seconds):
        while not until():
            await trio.to_thread.run_sync(lambda: None)
            jump(1)
            await settle()


async def refused(call: Callable[[], Any], kind: type[CoworkError]) -> CoworkError:
    with pytest.raises(kind) as caught:
        await call()
    return caught.value


# -- starts -------------------------------------------------------------------------------------------------------


@in_trio
async def test_without_a_disk_and_slots_the_image_runs_and_nothing_is_written(house: House) -> None:
    _, run = await house.start()
    assert run is None
    assert house.worker.trace == ["look"]
    assert not house.root.exists()
    assert house.states == []


@in_trio
async def test_a_machine_without_a_likely_disk_costs_no_worker(house: House) -> None:
    house.disk_is_likely = False
    await house.start()
    assert house.worker.trace == []


@in_trio
async def test_without_a_key_nothing_is_looked_at_and_nothing_applied(house: House) -> None:
    house.trust = None
    house.worker.offer("1.1")
    updates, run = await house.start()
    assert run is None
    assert house.worker.trace == []
    status = await updates.status()
    assert (status.enabled, status.reason) == (False, "the image has no key: updates are off")
    await refused(lambda: updates.apply(calls_update.UpdateApply()), InvalidState)
    await refused(lambda: updates.rollback(calls_update.UpdateRollback()), InvalidState)


@in_trio
async def test_what_is_newer_is_taken_verified_and_begun(house: House) -> None:
    house.worker.offer("1.1")
    _, run = await house.start()
    assert run == SlotRun(slot="a", version="1.1", contents=("code",), directory=str(house.root / "a"))
    assert house.worker.trace == ["look", "copy a sha-1.1", "verify a sha-1.1"]
    assert house.state().attempt is not None
    assert house.told == ["update.applied"]


@in_trio
async def test_the_slot_is_forgotten_before_it_is_written_over(house: House) -> None:
    await committed(house, "1.1")
    await committed(house, "1.2")
    house.worker.offer("1.3")
    house.worker.copy_refused = ("tampered", "app.py is not what was signed")
    _, run = await house.start()
    assert run is not None
    assert (run.slot, run.version) == ("b", "1.2")
    assert house.state().a is None


@in_trio
async def test_what_is_here_already_is_not_copied_again(house: House) -> None:
    await committed(house, "1.1")
    house.worker.trace.clear()
    await house.start()
    assert house.worker.trace == ["look", "verify a sha-1.1"]


@in_trio
async def test_a_refused_disk_changes_nothing_of_what_runs(house: House) -> None:
    await committed(house, "1.1")
    house.worker.refused = ("bad_signature", "the signature is not of this content")
    updates, run = await house.start()
    assert run is not None
    assert "bad_signature" not in (house.states[-1] or "")
    assert "refused" in (house.states[-1] or "")
    async with trio.open_nursery() as nursery:
        await nursery.start(updates.serve)
        await settle()
        nursery.cancel_scope.cancel()
    assert house.audit.kinds[-1] == "update.refused"


@in_trio
async def test_a_disk_that_does_not_answer_changes_nothing_of_what_runs(house: House) -> None:
    house.worker.broken = Unavailable("it does not answer")
    _, run = await house.start()
    assert run is None
    assert "it does not answer" in (house.states[-1] or "")


@in_trio
async def test_an_older_disk_is_no_trouble(house: House) -> None:
    await committed(house, "1.2")
    house.worker.offer("1.1")
    house.states.clear()
    _, run = await house.start()
    assert run is not None
    assert house.states == []


@in_trio
async def test_a_slot_that_was_tampered_with_is_left_for_the_other(house: House) -> None:
    await committed(house, "1.1")
    await committed(house, "1.2")
    house.worker.bad_slots["b"] = ("tampered", "app.py is not what was signed")
    _, run = await house.start()
    assert run is not None
    assert (run.slot, run.version) == ("a", "1.1")
    house.worker.bad_slots["a"] = ("tampered", "so is this")
    _, run = await house.start()
    assert run is None
    assert "so is this" in (house.states[-1] or "")


@in_trio
async def test_a_crashing_slot_is_tried_twice_and_never_again(house: House) -> None:
    await committed(house, "1.1")
    house.worker.offer("1.2")
    begun = []
    for _ in range(4):
        _, run = await house.start()
        begun.append(run.version if run is not None else "image")
    assert begun == ["1.2", "1.2", "1.1", "1.1"]
    assert house.told.count("update.applied") == 2


@in_trio
async def test_an_end_that_is_wanted_while_a_slot_comes_up_is_no_failure(house: House) -> None:
    """Also where it comes before the release has looked at the slots."""
    house.worker.offer("1.1")
    for _ in range(4):
        run = await house.make().choose()
        assert run is not None
        assert run.version == "1.1"
        await house.make().leave(begun=True)
    slot = house.state().a
    assert slot is not None
    assert (slot.status, slot.failures, house.state().attempt) == ("trying", 0, None)


@in_trio
async def test_slots_that_were_not_read_are_not_written_over(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await committed(house, "1.1")

    async def fail(self: SlotStates) -> str:
        raise DiskFailed("input/output error")

    monkeypatch.setattr(SlotStates, "load", fail)
    updates, run = await house.start()
    assert run is None
    house.worker.offer("1.2")
    await refused(lambda: updates.apply(calls_update.UpdateApply()), Unavailable)
    assert house.state().floor == "1.1"


@in_trio
async def test_a_verb_waits_for_what_is_being_written_down(house: House) -> None:
    """Two that each go on from the same state would lose one another's."""
    await committed(house, "1.1")
    house.worker.refused = ("bad_signature", "the signature is not of this content")
    updates, _ = await house.start()
    house.worker.refused = None
    house.worker.offer("1.2")
    record, goes_on, waits = house.audit.record, trio.Event(), trio.Event()

    async def slow(kind: str, fields: Mapping[str, Any], /) -> None:
        if kind == "update.refused":
            waits.set()
            await goes_on.wait()
        await record(kind, fields)

    house.audit.record = slow  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        await nursery.start(updates.serve)
        await waits.wait()
        nursery.start_soon(updates.apply, calls_update.UpdateApply())
        await settle()
        assert "update.apply" not in house.audit.kinds[2:], "it went on beside what was being recorded"
        goes_on.set()
        with trio.fail_after(600):
            while not house.restarts:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    state = house.state()
    assert (state.chosen, [item.kind for item in state.unrecorded]) == ("b", [])


@in_trio
async def test_a_damaged_state_is_told_and_the_image_runs(house: House) -> None:
    house.root.mkdir()
    (house.root / "state.json").write_text("{")
    _, run = await house.start()
    assert run is None
    assert "state.json" in (house.states[-1] or "")


@in_trio
async def test_a_disk_that_cannot_be_written_runs_nothing_it_could_not_write_down(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed(house, "1.1")

    async def fail(self: SlotStates, state: SlotState) -> None:
        raise DiskFailed("no space left on the device")

    monkeypatch.setattr(SlotStates, "save", fail)
    _, run = await house.start()
    assert run is None
    assert "no space" in (house.states[-1] or "")


# -- may it stay --------------------------------------------------------------------------------------------------


@in_trio
async def test_after_a_minute_of_health_it_may_stay(house: House) -> None:
    await committed(house, "1.1")
    slot = house.state().a
    assert slot is not None
    assert (slot.status, house.state().floor) == ("committed", "1.1")
    assert house.audit.kinds == ["update.apply", "update.commit"]
    assert house.told == ["update.applied", "update.committed"]


@in_trio
async def test_the_minute_begins_anew_when_something_is_wrong(house: House) -> None:
    house.worker.offer("1.1")
    updates, _ = await house.start()
    async with trio.open_nursery() as nursery:
        await nursery.start(updates.serve)
        for wrong, seconds in ((None, 50), ("launcher: gone", 2), (None, 50)):
            house.wrong = wrong
            await pass_time(seconds)
        assert house.state().floor == ""
        await pass_time(15, until=lambda: house.state().floor == "1.1")
        nursery.cancel_scope.cancel()


@in_trio
async def test_one_that_is_never_healthy_is_given_up(house: House) -> None:
    house.worker.offer("1.1")
    updates, _ = await house.start()
    house.wrong = "audit: it takes nothing"
    async with trio.open_nursery() as nursery:
        await nursery.start(updates.serve)
        await pass_time(GIVE_UP_S, until=lambda: bool(house.restarts))
        nursery.cancel_scope.cancel()
    assert len(house.restarts) == 1
    assert "it takes nothing" in house.restarts[0]
    house.wrong = None
    _, run = await house.start()
    assert run is None


@in_trio
async def test_what_had_no_log_is_recorded_when_there_is_one_and_once(house: House) -> None:
    house.worker.offer("1.1")
    house.audit.full.add("update.apply")
    for _ in range(2):
        updates, _ = await house.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(updates.serve)
            await settle()
            nursery.cancel_scope.cancel()
        await updates.leave()
        house.audit.full.clear()
    assert house.audit.kinds == ["update.apply"]
    assert house.state().unrecorded == ()


# -- verbs --------------------------------------------------------------------------------------------------------


@in_trio
async def test_apply_records_first_and_restarts(house: House) -> None:
    updates, _ = await house.start()
    house.worker.offer("1.1")
    answer = await updates.apply(calls_update.UpdateApply())
    assert (answer.slot, answer.version, answer.restarting) == ("a", "1.1", True)
    assert house.audit.kinds == ["update.apply"]
    assert house.state().unrecorded == ()
    assert len(house.restarts) == 1
    _, run = await house.start()
    assert run is not None


@in_trio
async def test_apply_without_a_log_changes_nothing(house: House) -> None:
    updates, _ = await house.start()
    house.worker.offer("1.1")
    house.audit.full.add("update.apply")
    await refused(lambda: updates.apply(calls_update.UpdateApply()), DiskFailed)
    assert not house.root.exists()
    assert house.restarts == []


@in_trio
async def test_apply_says_why_it_refuses(house: House) -> None:
    updates, _ = await house.start()
    await refused(lambda: updates.apply(calls_update.UpdateApply()), NotFound)
    house.worker.offer("1.1")
    house.worker.refused = ("wrong_architecture", "it is for aarch64")
    error = await refused(lambda: updates.apply(calls_update.UpdateApply()), InvalidState)
    assert error.details["why"] == "wrong_architecture"
    assert house.audit.fields("update.refused")["reason"] == "it is for aarch64"
    status = await updates.status()
    assert status.disk is not None
    assert (status.disk.why, status.disk.version) == ("wrong_architecture", "1.1")


@in_trio
async def test_a_bad_one_is_taken_again_only_on_demand(house: House) -> None:
    house.worker.offer("1.1")
    for _ in range(3):
        updates, run = await house.start()
    assert run is None
    error = await refused(lambda: updates.apply(calls_update.UpdateApply()), InvalidState)
    assert error.details["why"] == "failed_before"
    answer = await updates.apply(calls_update.UpdateApply(again=True, restart=False))
    assert answer.restarting is False
    assert house.restarts == []


@in_trio
async def test_what_runs_is_not_applied_again(house: House) -> None:
    await committed(house, "1.1")
    updates, _ = await house.start()
    await refused(lambda: updates.apply(calls_update.UpdateApply()), InvalidState)


@in_trio
async def test_a_rollback_goes_back_and_stays_there(house: House) -> None:
    await committed(house, "1.1")
    await committed(house, "1.2")
    updates, _ = await house.start()
    answer = await updates.rollback(calls_update.UpdateRollback(reason="it is slow"))
    assert (answer.slot, answer.version) == ("a", "1.1")
    assert house.audit.records[-1] == ("update.rollback", {"version": "1.1", "slot": "a", "reason": "it is slow"})
    await updates.leave()
    _, run = await house.start()
    assert run is not None
    assert run.version == "1.1"
    updates, _ = await house.start()
    answer = await updates.rollback(calls_update.UpdateRollback(to="0"))
    assert (answer.slot, answer.version) == ("0", "1.0")
    await refused(lambda: updates.rollback(calls_update.UpdateRollback()), InvalidState)


@in_trio
async def test_status_tells_all_of_it(house: House) -> None:
    await committed(house, "1.1")
    updates, _ = await house.start()
    status = await updates.status()
    assert (status.running, status.chosen, status.floor, status.image_version) == ("a", "a", "1.1", "1.0")
    assert [slot.status for slot in status.slots] == ["committed"]


@in_trio
async def test_nothing_can_be_applied_before_there_is_a_log(house: House) -> None:
    updates = house.make()
    await updates.choose()
    house.worker.offer("1.1")
    await refused(lambda: updates.apply(calls_update.UpdateApply()), InvalidState)
