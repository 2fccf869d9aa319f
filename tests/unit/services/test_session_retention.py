from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from coworkd.config import RetentionConfig
from coworkd.model.errors import DiskFailed
from coworkd.services.session_retention import Candidate, plan_retention
from tests.unit.services.disk_house import DiskHouse, open_disk_house
from tests.unit.services.process_house import in_trio

DAY_S = 86400.0
NOW = 1000 * DAY_S


def names(policy: RetentionConfig, *sessions: tuple[str, float, int], **fields: Any) -> list[str]:
    """Sessions as (name, days idle, bytes)."""
    candidates = [Candidate(name=name, idle_since=NOW - days * DAY_S, bytes=size) for name, days, size in sessions]
    planned = plan_retention(policy, candidates, **{"kept": 0, "kept_bytes": 0, "now": NOW, **fields})
    return [each.name for each in planned]


CROWD = (("a", 1.0, 10), ("b", 40.0, 20), ("c", 5.0, 30), ("d", 31.0, 40))


def test_a_policy_that_is_off_names_nobody() -> None:
    assert names(RetentionConfig(), *CROWD) == []


def test_by_age_the_longest_idle_go_first_and_only_those() -> None:
    assert names(RetentionConfig(max_age_days=30), *CROWD) == ["b", "d"]
    assert names(RetentionConfig(max_age_days=31), *CROWD) == ["b"]
    assert names(RetentionConfig(max_age_days=0.5), *CROWD) == ["b", "d", "c", "a"]


def test_by_count_no_more_go_than_have_to() -> None:
    assert names(RetentionConfig(max_sessions=3), *CROWD) == ["b"]
    assert names(RetentionConfig(max_sessions=4), *CROWD) == []
    assert names(RetentionConfig(max_sessions=4), *CROWD, kept=2) == ["b", "d"]


def test_by_size_no_more_go_than_have_to() -> None:
    assert names(RetentionConfig(max_total_bytes=100), *CROWD) == []
    assert names(RetentionConfig(max_total_bytes=99), *CROWD) == ["b"]
    assert names(RetentionConfig(max_total_bytes=79), *CROWD) == ["b", "d"]
    assert names(RetentionConfig(max_total_bytes=99), *CROWD, kept_bytes=1000) == ["b", "d", "c", "a"]


def test_what_goes_for_one_reason_counts_for_the_others() -> None:
    assert names(RetentionConfig(max_age_days=35, max_sessions=3), *CROWD) == ["b"]


POLICY = RetentionConfig(max_age_days=30, announce_s=600)


async def idle(house: DiskHouse, *sessions: str) -> None:
    for name in sessions:
        await house.ensure(name)
    house.now += 31 * DAY_S


@in_trio
async def test_it_is_said_first_and_goes_when_its_time_has_come(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob")
        (entry,) = (await house.retain()).entries
        assert (entry.deleted, entry.goes_at) == (False, house.now + 600)
        assert [told["goes_at"] for told in house.events_of("session.retention")] == [house.now + 600]
        house.now += 599
        await house.retain()
        assert house.home().exists()
        house.now += 1
        (entry,) = (await house.retain()).entries
        assert entry.deleted
        assert not house.home().exists()
        assert house.stored() == {}
        assert house.audit.kinds == ["session.create", "session.retention", "session.delete"]
        assert "retention: idle for" in house.audit.fields("session.delete")["reason"]
        assert (await house.retain()).entries == ()


@in_trio
async def test_a_dry_run_says_nothing_and_deletes_nothing(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob")
        for _ in range(3):
            (entry,) = (await house.retain(dry_run=True)).entries
            assert (entry.session, entry.deleted, entry.goes_at) == ("bob", False, None)
            house.now += DAY_S
        assert house.home().exists()
        assert house.events_of("session.retention") == []


@in_trio
async def test_nothing_goes_that_was_not_said(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob")
        house.audit.full.add("session.retention")
        with pytest.raises(DiskFailed):
            await house.retain()
        house.audit.full.clear()
        house.now += DAY_S
        (entry,) = (await house.retain()).entries
        assert not entry.deleted
        assert house.home().exists()


@in_trio
async def test_one_that_was_used_meanwhile_stays(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob")
        await house.retain()
        await house.sessions.open_for_command("bob")
        house.now += 700
        assert (await house.retain()).entries == ()
        house.now += 31 * DAY_S
        (entry,) = (await house.retain()).entries
        assert not entry.deleted, "it is said again"


@in_trio
async def test_never_one_that_is_in_use_half_made_or_thrown_away_anyway(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "busy", "half", "reown", "plain")
        await house.ensure("thrown", ephemeral=True)
        house.now += 31 * DAY_S
        house.processes.running["busy"] = 1
        records = house.sessions.table.records
        records["half"] = structs.replace(records["half"], state="incomplete")
        records["reown"] = structs.replace(records["reown"], reown_from=(7,))
        assert [entry.session for entry in (await house.retain()).entries] == ["plain"]


@in_trio
async def test_one_that_was_used_while_others_were_deleted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob", "eve")
        await house.retain()
        house.now += 600
        record = house.audit.record

        async def use_eve_then(kind: str, fields: dict[str, Any]) -> None:
            await record(kind, fields)
            house.sessions.uses.touch("eve")

        monkeypatch.setattr(house.audit, "record", use_eve_then)
        entries = (await house.retain()).entries
        assert [(entry.session, entry.deleted) for entry in entries] == [("bob", True), ("eve", False)]
        assert house.home("eve").exists()


@in_trio
async def test_one_in_which_a_command_began_at_the_last_moment_stays(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, POLICY) as house:
        await idle(house, "bob")
        house.processes.running["bob"] = 1
        assert not await house.sessions.delete_idle("bob", "retention")
        assert house.home().exists()
        house.processes.running.clear()
        assert await house.sessions.delete_idle("bob", "retention")
        assert await house.sessions.delete_idle("bob", "retention")


@in_trio
async def test_by_size_what_the_disk_says_counts(tmp_path: Path) -> None:
    async with open_disk_house(tmp_path, RetentionConfig(max_total_bytes=100_000, announce_s=0)) as house:
        for name in ("old", "new"):
            await house.ensure(name)
            house.write("work", 80_000, name=name)
            house.now += 10
        (entry,) = (await house.retain()).entries
        assert (entry.session, entry.deleted) == ("old", True)
        assert entry.bytes >= 80_000
        assert house.home("new").exists()
