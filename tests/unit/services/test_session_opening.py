from __future__ import annotations

from pathlib import Path

import pytest

from coworkd.model.errors import SandboxSetupFailed
from coworkd.model.launch import TreeBind
from coworkd.model.policy import LimitsRequest
from coworkd.services.session_opening import Openings
from tests.unit.services.process_house import in_trio
from tests.unit.services.session_house import LAYOUT, SessionHouse, record


def openings(house: SessionHouse) -> Openings:
    return Openings(
        launcher=house.launcher,
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
