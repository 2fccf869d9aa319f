from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from coworkd.model.calls import SessionDelete, SessionName, SetPolicy
from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.model.errors import (
    DiskFailed,
    InternalError,
    InvalidParams,
    InvalidState,
    NotFound,
    Unavailable,
)
from coworkd.model.launch import OpenSession
from coworkd.model.policy import LimitsRequest
from coworkd.model.ports import OpenedSession
from tests.unit.services.process_house import in_trio, settle
from tests.unit.services.session_house import open_house


def settings(*allowed: str) -> dict[str, Any]:
    return {"network": {"allowedDomains": list(allowed), "deniedDomains": []}}


@in_trio
async def test_what_a_session_may_reach_changes_while_commands_run(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        house.policies.egress_narrowed = ("egress: evil.example stays out",)
        done = await house.sessions.set_policy(
            SetPolicy(session="bob", egress=settings("index.example", "evil.example"))
        )
        assert (done.closed, done.narrowed) == (3, ("egress: evil.example stays out",))
        assert [layer["source"] for layer in done.effective["egress"]] == ["egress/default.json", "request"]
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]
        assert house.egress.close_forbidden == [True]
        assert house.stored()["bob"].egress == settings("index.example", "evil.example")
        assert house.audit.fields("policy.set")["allowed"] == ["index.example", "evil.example"]
        assert house.trace == ["open bob"]
        kept = await house.sessions.policy(SessionName(session="bob"))
        assert kept.profile == "default"
        assert len(kept.egress) == 2


@in_trio
async def test_profile_and_limits_change_only_under_an_idle_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.processes.running["bob"] = 1
        with pytest.raises(InvalidState, match="run on its profile"):
            await house.sessions.set_policy(SetPolicy(session="bob", profile="strict"))
        assert "policy.set" not in house.audit.kinds
        house.processes.running.clear()
        await house.sessions.set_policy(SetPolicy(session="bob", profile="strict", limits=LimitsRequest(nofile=64)))
        assert house.trace == ["open bob", "close bob", "stop bob"]
        await house.sessions.open("bob")
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/strict.json"]
        assert house.stored()["bob"].limits.nofile == 64


@in_trio
async def test_settings_with_a_mistake_change_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()["bob"]
        with pytest.raises(InvalidParams):
            await house.sessions.set_policy(SetPolicy(session="bob", egress={"netwrk": {}}))
        house.audit.full.add("policy.set")
        with pytest.raises(DiskFailed):
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"] == before
        assert house.egress.close_forbidden == []


@in_trio
async def test_what_it_may_reach_outlives_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        await house.restart()
        house.processes.running["bob"] = 1
        await house.sessions.reopen()
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]


@in_trio
async def test_empty_settings_take_earlier_ones_away(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        await house.sessions.set_policy(SetPolicy(session="bob", egress={}))
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json"]
        assert house.stored()["bob"].egress is None


@in_trio
async def test_policies_that_changed_on_disk_reach_every_open_session(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure("bob")
        await house.ensure("eve")
        await house.sessions.delete(SessionDelete(session="eve"))
        house.policies.egress = SessionEgress(settings=(EgressSettings(source="new", preset_env={"MIRROR": "url"}),))
        await house.sessions.refresh()
        assert house.egress.served == {"bob": house.policies.egress}
        assert (await house.sessions.open("bob")).tool_variables == {"MIRROR": "url"}
        house.policies.error = NotFound("the profile is gone")
        await house.sessions.refresh()
        assert len(house.egress.served["bob"].settings) == 0
        assert (await house.sessions.open("bob")).tool_variables == {}


@in_trio
async def test_a_session_that_is_being_opened_gets_the_policies_that_changed_meanwhile(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.launcher.restart()
        reached, goes_on = trio.Event(), trio.Event()
        open_session = house.launcher.open_session

        async def slow(request: OpenSession, /) -> OpenedSession:
            reached.set()
            await goes_on.wait()
            return await open_session(request)

        house.launcher.open_session = slow  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.sessions.open, "bob")
            await reached.wait()
            house.policies.egress = SessionEgress(settings=(EgressSettings(source="narrower"),))
            nursery.start_soon(house.sessions.refresh)
            await settle()
            goes_on.set()
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["narrower"]


@in_trio
async def test_a_session_that_cannot_be_told_of_its_policies_reaches_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        house.egress.error = InternalError("coworkd-egress refused: too many open files")
        await house.sessions.refresh()
        assert house.egress.served == {}


@in_trio
async def test_a_policy_that_cannot_be_set_changes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        before = house.stored()["bob"]
        house.egress.error = InternalError("coworkd-egress refused: too many open files")
        with pytest.raises(InternalError):
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"] == before
        house.launcher.fails["close"] = Unavailable("the launcher is away")
        with pytest.raises(Unavailable):
            await house.sessions.set_policy(SetPolicy(session="bob", profile="strict"))
        assert house.stored()["bob"] == before
        assert (await house.sessions.policy(SessionName(session="bob"))).profile == "default"


@in_trio
async def test_a_policy_whose_caller_has_gone_holds_as_a_whole(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        record = house.audit.record
        with trio.CancelScope() as caller:

            async def record_and_go(kind: str, fields: Mapping[str, Any], /) -> None:
                await record(kind, fields)
                caller.cancel()

            house.audit.record = record_and_go  # type: ignore[method-assign]
            await house.sessions.set_policy(SetPolicy(session="bob", egress=settings("index.example")))
        assert house.stored()["bob"].egress == settings("index.example")
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json", "request"]
