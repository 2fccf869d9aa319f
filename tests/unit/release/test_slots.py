from __future__ import annotations

import msgspec
import pytest

from coworkd.release import slots
from coworkd.release.refusal import ReleaseRefused
from coworkd.release.slots import Slot, SlotName, SlotState
from coworkd.release.store import STATE_LIMIT_BYTES

FIRST, SECOND = "boot-1", "boot-2"


def slot(version: str, sha256: str = "") -> Slot:
    return Slot(version=version, sha256=sha256 or f"sha-{version}", contents=("code",))


def staged(*versions: str) -> SlotState:
    """Each staged after the one before was committed."""
    state = SlotState()
    for number, version in enumerate(versions):
        name = slots.free_slot(state)
        state = slots.stage(slots.clear(state, name), name, slot(version))
        if number < len(versions) - 1:
            state = slots.commit(slots.begin(state, name, boot_id=FIRST), name)
    return state


def fail(state: SlotState, boot_id: str = FIRST) -> SlotState:
    """Begin what is to be begun, and come to nothing."""
    name = slots.candidate(state)
    assert name is not None
    return slots.settle(slots.begin(state, name, boot_id=boot_id), boot_id=boot_id)


def test_nothing_staged_is_the_image() -> None:
    assert slots.candidate(SlotState()) is None


def test_the_first_goes_to_a_and_the_next_beside_it() -> None:
    assert (slots.free_slot(SlotState()), slots.free_slot(staged("1.1"))) == ("a", "b")
    state = staged("1.1", "1.2")
    assert (state.chosen, slots.candidate(state), slots.free_slot(state)) == ("b", "b", "a")


def test_a_commit_is_recorded_once() -> None:
    state = staged("1.1")
    for _ in range(2):
        state = slots.commit(slots.begin(state, "a", boot_id=FIRST), "a")
    assert [item.kind for item in state.unrecorded] == ["update.apply", "update.commit"]
    assert (state.floor, state.attempt) == ("1.1", None)


def test_two_starts_that_come_to_nothing_end_in_the_image() -> None:
    state = fail(staged("1.1"))
    assert slots.candidate(state) == "a"
    state = fail(state)
    assert slots.candidate(state) is None
    assert state.chosen == "0"
    assert state.unrecorded[-1].kind == "update.rollback"
    assert state.unrecorded[-1].fields["slot"] == "0"


def test_the_other_slot_is_next_if_it_was_committed() -> None:
    state = fail(fail(staged("1.1", "1.2")))
    assert (state.chosen, slots.candidate(state)) == ("a", "a")
    state = fail(fail(state))
    assert slots.candidate(state) is None


def test_a_slot_that_was_never_committed_is_no_way_back() -> None:
    state = slots.stage(staged("1.1"), "b", slot("1.2"))
    state = fail(fail(state))
    assert slots.candidate(state) is None


def test_a_committed_slot_that_does_not_start_any_more_is_left_too() -> None:
    state = slots.commit(slots.begin(staged("1.1"), "a", boot_id=FIRST), "a")
    assert slots.candidate(fail(fail(state))) is None


def test_failures_are_in_a_row() -> None:
    state = fail(staged("1.1"))
    state = slots.commit(slots.begin(state, "a", boot_id=FIRST), "a")
    assert slots.candidate(fail(state)) == "a"


def test_what_ends_as_wanted_has_not_failed() -> None:
    state = staged("1.1")
    for _ in range(10):
        state = slots.settle(slots.leave(slots.begin(state, "a", boot_id=FIRST)), boot_id=FIRST)
    assert slots.candidate(state) == "a"


def test_a_power_cut_after_it_came_up_is_borne_for_a_while() -> None:
    state = staged("1.1")
    for number in range(slots.INTERRUPTIONS):
        assert slots.candidate(state) == "a"
        begun = slots.came_up(slots.begin(state, "a", boot_id=f"{number}"))
        state = slots.settle(begun, boot_id=f"{number + 1}")
    assert slots.candidate(state) is None


def test_a_crash_after_it_came_up_in_the_same_boot_is_a_failure() -> None:
    state = staged("1.1")
    for _ in range(slots.FAILURES):
        state = slots.settle(slots.came_up(slots.begin(state, "a", boot_id=FIRST)), boot_id=FIRST)
    assert slots.candidate(state) is None


def test_a_boot_that_ended_before_it_came_up_is_a_failure() -> None:
    state = staged("1.1")
    for _ in range(slots.FAILURES):
        state = slots.settle(slots.begin(state, "a", boot_id=FIRST), boot_id=SECOND)
    assert slots.candidate(state) is None


def test_what_turned_out_bad_is_not_taken_again_unless_somebody_says_so() -> None:
    state = fail(fail(staged("1.1")))
    with pytest.raises(ReleaseRefused) as refused:
        slots.check_offer(state, "1.1", "sha-1.1")
    assert refused.value.why == "failed_before"
    assert slots.check_offer(state, "1.1", "sha-1.1", again=True) is None
    state = slots.stage(state, "a", slot("1.1"))
    assert state.bad == ()
    assert slots.check_offer(state, "1.1", "sha-1.1") == "a"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_what_is_not_newer_is_refused(version: str) -> None:
    with pytest.raises(ReleaseRefused) as refused:
        slots.check_offer(staged("1.1"), version, "another")
    assert refused.value.why == "not_newer"


def test_the_floor_stays_after_a_rollback() -> None:
    state = slots.commit(slots.begin(staged("1.1", "1.3"), "b", boot_id=FIRST), "b")
    state = slots.roll_back(state, None, "asked for")
    assert (state.chosen, state.floor) == ("a", "1.3")
    with pytest.raises(ReleaseRefused):
        slots.check_offer(state, "1.2", "another")
    assert slots.check_offer(state, "1.4", "another") is None


def test_a_rollback_goes_where_it_is_told() -> None:
    state = slots.roll_back(staged("1.1", "1.2"), "0", "asked for")
    assert (slots.candidate(state), state.chosen) == (None, "0")
    assert state.b is not None
    assert (state.b.status, state.b.reason) == ("bad", "asked for")


@pytest.mark.parametrize(
    ("state", "to"), [(SlotState(), None), (SlotState(), "0"), (staged("1.1"), "b"), (staged("1.1"), "a")]
)
def test_there_is_no_way_back_to_nothing(state: SlotState, to: SlotName | None) -> None:
    with pytest.raises(ReleaseRefused):
        slots.roll_back(state, to, "asked for")


def test_a_slot_that_was_chosen_again_after_a_rollback_may_be_run() -> None:
    state = slots.commit(slots.begin(staged("1.1", "1.2"), "b", boot_id=FIRST), "b")
    state = slots.roll_back(state, "a", "asked for")
    assert slots.candidate(state) == "a"


def test_what_is_kept_is_bounded() -> None:
    state = SlotState()
    for number in range(100):
        state = slots.stage(state, "a", slot(f"1.{number}", f"sha-{number}"))
        state = slots.spoil(state, "a", "x" * 5000)
        state = slots.refuse(state, version="1.0", slot="0", reason="y" * 5000)
    assert len(state.bad) == slots.BAD_LIMIT
    assert len(state.unrecorded) == slots.UNRECORDED_LIMIT
    assert state.a is not None
    assert len(state.a.reason) == slots.REASON_LIMIT


def test_what_others_could_not_record_is_carried_along() -> None:
    state = slots.carry(staged("1.1"), [("link.open", {"peer": "cid 2"})])
    assert [item.kind for item in state.unrecorded] == ["update.apply", "link.open"]
    state = slots.carry(state, [("link.open", {})] * 1000)
    assert len(state.unrecorded) == slots.UNRECORDED_LIMIT
    assert state.unrecorded[0].kind == "update.apply"


def test_what_others_say_of_themselves_never_makes_the_state_too_big_to_be_read() -> None:
    state = slots.carry(staged("1.1"), [("link.open", {"client": "\x01" * 16_000, "protocol": 1})] * 256)
    assert len(msgspec.json.format(msgspec.json.encode(state))) < STATE_LIMIT_BYTES
    assert len(state.unrecorded) > 10
    assert state.unrecorded[1].fields == {"client": "\x01" * slots.REASON_LIMIT, "protocol": 1}


def test_what_is_recorded_is_taken_out_from_the_front() -> None:
    state = slots.commit(staged("1.1"), "a")
    assert [item.kind for item in slots.recorded(state, 1).unrecorded] == ["update.commit"]
    assert slots.recorded(state, 2).unrecorded == ()
