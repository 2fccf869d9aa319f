from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.calls import SessionDelete
from coworkd.model.egress import EgressSettings, SessionEgress
from coworkd.model.errors import SandboxSetupFailed
from coworkd.model.launch import TreeBind
from coworkd.model.policy import LimitsRequest
from coworkd.services.session_opening import Openings
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import LAYOUT, SessionHouse, open_house, record


def openings(house: SessionHouse) -> Openings:
    return Openings(
        launcher=house.launcher,
        groups=house.groups,
        folders=house.folders,
        egress=house.egress,
        policies=house.policies,
        trust=house.trust,
        home_path=house.homes.path,
        layout=LAYOUT,
    )


@in_trio
async def test_an_opened_session_has_namespaces_and_a_way_out(tmp_path: Path) -> None:
    house = SessionHouse(tmp_path)
    room = openings(house)
    turns: list[tuple[str, bool]] = []
    room.on_turn = lambda session, *, is_open: turns.append((session, is_open))
    house.launcher.told, house.policies.egress_narrowed = ("memory is not limited",), ("egress: x stays out",)
    opened = await room.open(record(), await house.policies.effective(None, LimitsRequest()))
    assert opened.told == ("memory is not limited", "egress: x stays out")
    assert (room.is_open("bob"), room.names) == (True, ("bob",))
    assert len(house.egress.listeners["bob"]) == 1
    binds = [entry.source for entry in house.launcher.open["bob"].tree if isinstance(entry, TreeBind)]
    assert b"/state/trust/current" in binds
    await room.close("bob")
    assert (room.is_open("bob"), house.egress.served) == (False, {})
    assert turns == [("bob", True), ("bob", False)]


def leading_to(*mirrors: str) -> SessionEgress:
    """Settings whose presets know a mirror each; the first is the profile's."""
    return SessionEgress(
        settings=tuple(EgressSettings(source=url, preset_env={"PIP_INDEX_URL": url}) for url in mirrors)
    )


@in_trio
async def test_tools_are_told_of_the_mirrors_of_the_profile_for_as_long_as_they_hold(tmp_path: Path) -> None:
    house = SessionHouse(tmp_path)
    room = openings(house)
    house.policies.egress = leading_to("https://a.example/", "https://request.example/")
    assert room.view(record()).tool_variables == {}
    await room.open(record(), await house.policies.effective(None, LimitsRequest()))
    assert room.view(record()).tool_variables == {"PIP_INDEX_URL": "https://a.example/"}
    changed = leading_to("https://b.example/")
    assert await room.change("bob", changed, close_forbidden=True) == 3
    assert house.egress.served["bob"] == changed
    assert room.view(record()).tool_variables == {"PIP_INDEX_URL": "https://b.example/"}
    await room.change("bob", SessionEgress(settings=()), close_forbidden=True)
    assert room.view(record()).tool_variables == {}
    await room.change("bob", changed, close_forbidden=True)
    await room.close("bob")
    assert room.view(record()).tool_variables == {}


@in_trio
async def test_what_the_launcher_refuses_has_no_way_out(tmp_path: Path) -> None:
    house = SessionHouse(tmp_path)
    room = openings(house)
    house.launcher.fails["open"] = SandboxSetupFailed("no")
    with pytest.raises(SandboxSetupFailed):
        await room.open(record(), await house.policies.effective(None, LimitsRequest()))
    assert (room.is_open("bob"), house.egress.served) == (False, {})


@in_trio
async def test_another_launcher_knows_nobody(tmp_path: Path) -> None:
    house = SessionHouse(tmp_path)
    room = openings(house)
    await room.open(record(), await house.policies.effective(None, LimitsRequest()))
    house.launcher.restart()
    assert (room.is_open("bob"), room.names) == (False, ())
    await house.egress.stop("bob")


@in_trio
async def test_a_session_is_served_when_it_opens_and_not_after_its_end(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        assert [layer.source for layer in house.egress.served["bob"].settings] == ["egress/default.json"]
        await house.sessions.delete(SessionDelete(session="bob"))
        assert house.egress.served == {}


@in_trio
async def test_another_launcher_gives_other_listeners(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        first = house.egress.listeners["bob"]
        house.launcher.restart()
        await house.sessions.open("bob")
        assert house.egress.listeners["bob"] != ()
        assert house.trace[-1] == "open bob"
        assert first is not house.egress.listeners["bob"]


@in_trio
async def test_the_view_has_the_proxies_and_the_trust_of_this_moment(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ensure()
        view = await house.sessions.open("bob")
        assert (view.proxied, view.trust_bundle) == (True, None)
        house.trust.bundle_path_inside = "/etc/coworkd/trust/ca-bundle.pem"
        assert (await house.sessions.open("bob")).trust_bundle == "/etc/coworkd/trust/ca-bundle.pem"
