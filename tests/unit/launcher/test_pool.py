"""When standbys are made and dismissed, with sessions and a spawner that only count."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from coworkd.launcher.session import Session
from coworkd.launcher.spawn import Spawner
from coworkd.launcher.standbys import Standbys


class FakeStandby:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.dismissed = 0

    def dismiss(self) -> None:
        self.dismissed += 1


class FakeSession:
    def __init__(self, name: str) -> None:
        self.name = name
        self.standby: FakeStandby | None = None

    def take_standby(self) -> FakeStandby | None:
        taken, self.standby = self.standby, None
        return taken


class House:
    """Sessions `s0` …, a clock that stands still, and a spawner that fails if `fails` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.now = 100.0
        self.fails = False
        self.made: list[FakeStandby] = []
        self.outfits = 0
        self.sessions = {f"s{number}": FakeSession(f"s{number}") for number in range(count)}
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.standbys = Standbys(cast(dict[str, Session], self.sessions), cast(Spawner, self))

    def make_standby(self, session: Any) -> FakeStandby:
        if self.fails:
            raise OSError(11, "no process is left")
        self.made.append(FakeStandby(pid=len(self.made) + 1))
        return self.made[-1]

    def make_ready(self) -> None:
        self.outfits += 1


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def test_an_opened_session_has_one_at_once(house: House) -> None:
    assert house.standbys.next_due() is None
    house.standbys.want_now("s0")
    assert house.standbys.next_due() == 0.0
    house.standbys.make_due()
    assert house.sessions["s0"].standby is house.made[0]
    assert (house.outfits, house.standbys.next_due()) == (1, None)


@pytest.mark.parametrize(("want", "rest_s"), [("want_after_start", 0.03), ("want_after_end", 0.002)])
def test_it_rests_while_a_command_starts_or_ends(house: House, want: str, rest_s: float) -> None:
    getattr(house.standbys, want)("s0")
    assert house.standbys.next_due() == pytest.approx(100.0 + rest_s)
    house.now += rest_s / 2
    house.standbys.make_due()
    assert house.made == []
    house.now += rest_s
    house.standbys.make_due()
    assert len(house.made) == 1


def test_one_is_enough(house: House) -> None:
    for _ in range(2):
        house.standbys.want_now("s0")
        house.standbys.make_due()
    assert len(house.made) == 1


def test_a_session_that_is_gone_gets_none(house: House) -> None:
    house.standbys.want_now("s9")
    house.standbys.make_due()
    assert (house.made, house.standbys.next_due()) == ([], None)


def test_what_cannot_be_had_is_left_to_the_next_command(house: House) -> None:
    house.fails = True
    house.standbys.want_now("s0")
    house.standbys.make_due()
    assert house.sessions["s0"].standby is None
    assert house.standbys.next_due() is None


def test_only_the_sessions_used_last_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, count=10)
    for name in [*house.sessions, "s2"]:
        house.standbys.want_now(name)
        house.standbys.make_due()
    standing = {name for name, session in house.sessions.items() if session.standby is not None}
    assert standing == {"s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"}
    house.standbys.want_now("s0")
    house.standbys.make_due()  # s2 was used again: it is s3 that goes
    assert house.sessions["s3"].standby is None
    assert house.sessions["s2"].standby is not None
    assert sum(each.dismissed for each in house.made) == len(house.made) - 8


def test_one_that_was_killed_while_it_waited_is_forgotten(house: House) -> None:
    house.standbys.want_now("s0")
    house.standbys.make_due()
    house.standbys.forget(pid=99)
    assert house.sessions["s0"].standby is not None
    house.standbys.forget(pid=1)
    assert house.sessions["s0"].standby is None
    assert house.made[0].dismissed == 1


def test_a_closed_session_is_not_looked_after(house: House) -> None:
    house.standbys.want_now("s0")
    house.standbys.make_due()
    house.standbys.discard("s0")
    del house.sessions["s0"]
    house.standbys.forget(pid=1)
    assert house.made[0].dismissed == 0
