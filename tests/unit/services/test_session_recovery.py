from __future__ import annotations

from typing import Any

from coworkd.model.uids import MAX_UID
from coworkd.services.session_recovery import Found, Recovery, plan_recovery
from tests.unit.services.session_house import record

BOB, EVE = record(), record("eve", uid=1002, gid=1002, created_at=2.0)


def recover(*records: Any, homes: dict[str, int] | None = None, **fields: Any) -> Recovery:
    known = {each.name: each for each in records}
    found = {name: each.uid for name, each in known.items()} if homes is None else homes
    return plan_recovery(Found(records=known, homes=found, **{"owners": {0: "root"}, "now": 99.0, **fields}))


def told(done: Recovery) -> dict[str, str]:
    return {finding.session: finding.reason for finding in done.findings}


def test_what_is_as_it_was_left_is_nothing_to_tell() -> None:
    gone = record("gone", uid=1003, gid=1003, state="deleting")
    owners = {0: "root", 1001: "bob", 1002: "eve"}
    done = recover(BOB, EVE, gone, homes={"bob": 1001, "eve": 1002}, owners=owners)
    assert done.records == {"bob": BOB, "eve": EVE, "gone": gone}
    assert done.findings == ()


def test_a_session_whose_number_an_account_has_gets_another() -> None:
    done = recover(BOB, EVE, owners={1001: "admin"})
    (finding,) = done.findings
    moved = done.records["bob"]
    assert (moved.uid, moved.gid, moved.reown_from, moved.state) == (MAX_UID, MAX_UID, (1001,), "ready")
    assert finding.before == BOB
    assert "account or group admin" in finding.reason
    assert done.records["eve"] == EVE


def test_the_home_says_whose_a_number_is_that_two_records_have() -> None:
    twin = record("twin", created_at=0.5)
    done = recover(BOB, twin, homes={"bob": 1001, "twin": 1007})
    assert done.records["bob"] == BOB
    moved = done.records["twin"]
    assert (moved.uid, moved.reown_from) == (MAX_UID, (1001, 1007))


def test_the_older_keeps_a_number_that_both_homes_have() -> None:
    twin = record("twin", created_at=0.5)
    done = recover(BOB, twin)
    assert done.records["twin"] == twin
    assert (done.records["bob"].uid, done.records["bob"].reown_from) == (MAX_UID, (1001,))
    assert told(done) == {"bob": f"uid 1001 is session twin's on this system; it gets {MAX_UID}"}


def test_a_home_of_another_goes_over_to_its_session() -> None:
    for owner in (0, 33, 1555):
        done = recover(BOB, homes={"bob": owner})
        assert (done.records["bob"].uid, done.records["bob"].reown_from) == (1001, (owner,))
        assert f"belongs to uid {owner}" in told(done)["bob"]


def test_what_was_cut_short_goes_on() -> None:
    half = record(uid=1009, gid=1009, reown_from=(1001,))
    done = recover(half, homes={"bob": 1001})
    assert done.records["bob"] == half
    assert "cut short" in told(done)["bob"]


def test_another_clash_on_the_way_forgets_nobody() -> None:
    half = record(uid=1009, gid=1009, reown_from=(1001,))
    done = recover(half, homes={"bob": 1001}, owners={1009: "new"})
    assert done.records["bob"].reown_from == (1001, 1009)


def test_a_home_without_a_record_is_a_session_half_made() -> None:
    done = recover(BOB, homes={"bob": 1001, "left": 1444})
    left = done.records["left"]
    assert (left.uid, left.gid, left.state, left.created_at, left.reown_from) == (1444, 1444, "incomplete", 99.0, ())
    assert done.findings[0].before is None
    assert "without a record" in told(done)["left"]


def test_a_home_without_a_record_whose_owner_is_somebody_gets_a_number() -> None:
    for uid in (1001, 1777):
        done = recover(BOB, homes={"bob": 1001, "left": uid}, owners={1777: "admin"})
        assert (done.records["left"].uid, done.records["left"].reown_from) == (MAX_UID, (uid,))
        assert done.records["bob"] == BOB


def test_a_directory_no_session_can_own_is_no_session() -> None:
    for owner in (0, 1000, MAX_UID + 1):
        assert recover(homes={"shared": owner}).records == {}


def test_what_is_a_later_coworkds_keeps_name_and_number() -> None:
    done = recover(BOB, homes={"bob": 1001, "later": 1500}, reserved={"later": 1500, "other": 1001, "third": None})
    assert set(done.records) == {"bob"}
    assert done.records["bob"].uid == MAX_UID


def test_new_numbers_are_nobodys_and_each_once() -> None:
    crowd = [record(f"s{number}", created_at=number) for number in range(4)]
    done = recover(*crowd, homes={}, owners={MAX_UID: "top"}, ranges=[range(MAX_UID - 2, MAX_UID)])
    assert [done.records[each.name].uid for each in crowd] == [1001, MAX_UID - 3, MAX_UID - 4, MAX_UID - 5]


def test_what_is_being_deleted_is_left_to_that() -> None:
    dying = record(state="deleting")
    assert recover(dying, homes={"bob": 0}, owners={1001: "admin"}).records == {"bob": dying}
