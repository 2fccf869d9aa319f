"""When something is made to wait, and when that is dropped: with sessions, a spawner and memory that only count."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from msgspec import structs

from coworkd.launcher.bwrap import Bwrap
from coworkd.launcher.pool import Pool
from coworkd.launcher.pressure import Pressure
from coworkd.launcher.readers import Readers
from coworkd.launcher.reaper import Reaper
from coworkd.launcher.session import Session
from coworkd.launcher.shim_usage import NOTHING
from coworkd.launcher.spawn import Spawner
from coworkd.launcher.warm import WarmSandbox, walls_of
from coworkd.model.launch import Spawn
from coworkd.model.limits import CgroupLimits
from tests.unit.launcher.launcher_room import SPAWN

COMMAND = structs.replace(
    SPAWN, session="s0", shim=(b"/usr/bin/python3",), warm=1, limits=CgroupLimits(memory_max_bytes=64 << 20)
)


class FakeStandby:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.dismissed = 0

    def dismiss(self) -> None:
        self.dismissed += 1


class FakeBwrap:
    """Built at once and ready, unless the house says `slow`."""

    def __init__(self, *, ready: bool) -> None:
        self.shim_usage = NOTHING if ready else None
        self.monitor_status: int | None = None
        self.payload_status: int | None = None
        self.cgroup_path = None
        self.gone = False
        self.killed = 0
        self.on_news: Any = None
        self.link = self

    def fileno(self) -> int:
        return 7

    def hear_ready(self) -> bool:
        """It comes up late."""
        was, self.shim_usage = self.shim_usage, NOTHING
        return was is None

    def kill(self) -> None:
        self.killed += 1

    def die(self) -> None:
        self.monitor_status, self.gone = 9, True
        self.hear_ready = lambda: False  # type: ignore[method-assign]
        self.on_news()


class FakeSession:
    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.standby: FakeStandby | None = None
        self.warm: list[WarmSandbox] = []

    def take_standby(self) -> FakeStandby | None:
        taken, self.standby = self.standby, None
        return taken

    def take_warm(self) -> list[WarmSandbox]:
        taken, self.warm = self.warm, []
        return taken


class House:
    """Sessions `s0` …, a clock that stands still, a spawner that fails if `fails` says so, and memory that is `short` if it is said to be.

    It stands for the spawner, the reaper and the pressure as well.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.now = 100.0
        self.fails = self.short = self.slow = False
        self.made: list[FakeStandby] = []
        self.bwraps: list[FakeBwrap] = []
        self.templates: list[Spawn] = []
        self.outfits = 0
        self.heard: list[Any] = []
        """Whom to call when a shim says something."""
        self.watched: set[str] = set()
        self.awaited: list[str] = []
        """The cgroups in which everybody was to be born."""
        self.on_short: Any = None
        self.sessions = {f"s{number}": FakeSession(f"s{number}") for number in range(count)}
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.pool = Pool(
            cast("dict[str, Session]", self.sessions),
            readers=cast("Readers", self),
            spawner=cast("Spawner", self),
            reaper=cast("Reaper", self),
            pressure=cast("Pressure", self),
        )

    # -- the spawner --------------------------------------------------------------------------------------------

    def make_standby(self, session: Any) -> FakeStandby:
        if self.fails:
            raise OSError(11, "no process is left")
        self.made.append(FakeStandby(pid=len(self.made) + 1))
        return self.made[-1]

    def make_ready(self) -> None:
        self.outfits += 1

    def make_shimmed(self, request: Spawn, session: FakeSession) -> FakeBwrap:
        assert session.take_standby() is not None
        self.templates.append(request)
        self.bwraps.append(FakeBwrap(ready=not self.slow))
        return self.bwraps[-1]

    def session_cgroup(self, session: str) -> None: ...

    def commands_cgroup(self, session: str) -> str:
        return f"/cgroup/{session}"

    # -- the reaper, readers and memory ---------------------------------------------------------------------------------

    def expect(self) -> None: ...

    def add(self, bwrap: Bwrap) -> None: ...

    def register(self, fd: int, call: Any) -> None:
        self.heard.append(call)

    def unregister(self, fd: int) -> None:
        self.heard.pop(0)

    def wait_gone(self, bwraps: list[Bwrap], limit_s: float) -> None: ...

    def wait_born(self, group: str, limit_s: float) -> None:
        assert limit_s <= 1
        self.awaited.append(group)

    def is_short(self, session: str, group: None) -> bool:
        return self.short

    def watch(self, session: str, group: None) -> None:
        self.watched.add(session)

    def unwatch(self, session: str) -> None:
        self.watched.discard(session)

    # -- what happens -------------------------------------------------------------------------------------------

    def command(self, request: Spawn = COMMAND) -> WarmSandbox | None:
        """One starts."""
        taken = self.pool.take(cast("Session", self.sessions[request.session]), request)
        self.pool.want_after_start(request.session)
        return taken

    def rest(self, seconds: float = 1.0) -> None:
        """Time passes, and all that is due is done."""
        until = self.now + seconds
        while (due := self.pool.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.pool.make_due()
        self.now = until

    def warm(self, session: str = "s0") -> int:
        return len(self.sessions[session].warm)

    def counts(self) -> tuple[int, int, int, int, int]:
        """Waiting, taken, cold instead, died, dropped."""
        counts = self.pool.counts(7)
        return counts.waiting, counts.taken, counts.cold_instead, counts.died, counts.dropped


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def test_an_opened_session_has_one_at_once(house: House) -> None:
    assert house.pool.next_due() is None
    house.pool.want_now("s0")
    assert house.pool.next_due() == 0.0
    house.pool.make_due()
    assert house.sessions["s0"].standby is house.made[0]
    assert (house.outfits, house.pool.next_due()) == (1, 400.0)


@pytest.mark.parametrize(("want", "rest_s"), [("want_after_start", 0.03), ("want_after_end", 0.002)])
def test_it_rests_while_a_command_starts_or_ends(house: House, want: str, rest_s: float) -> None:
    getattr(house.pool, want)("s0")
    assert house.pool.next_due() == pytest.approx(100.0 + rest_s)
    house.now += rest_s / 2
    house.pool.make_due()
    assert house.made == []
    house.now += rest_s
    house.pool.make_due()
    assert len(house.made) == 1


def test_one_is_enough(house: House) -> None:
    for _ in range(2):
        house.pool.want_now("s0")
        house.pool.make_due()
    assert len(house.made) == 1


def test_a_session_that_is_gone_gets_none(house: House) -> None:
    house.pool.want_now("s9")
    house.pool.make_due()
    assert house.made == []


def test_what_cannot_be_had_is_left_to_the_next_command(house: House) -> None:
    house.fails = True
    house.pool.want_now("s0")
    house.pool.make_due()
    assert house.sessions["s0"].standby is None


def test_only_the_sessions_used_last_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, count=10)
    for name in [*house.sessions, "s2"]:
        house.pool.want_now(name)
        house.pool.make_due()
    standing = {name for name, session in house.sessions.items() if session.standby is not None}
    assert standing == {"s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"}
    house.pool.want_now("s0")
    house.pool.make_due()  # s2 was used again: it is s3 that goes
    assert house.sessions["s3"].standby is None
    assert house.sessions["s2"].standby is not None
    assert sum(each.dismissed for each in house.made) == len(house.made) - 8


def test_one_that_was_killed_while_it_waited_is_forgotten(house: House) -> None:
    house.pool.want_now("s0")
    house.pool.make_due()
    house.pool.reaped(99)
    assert house.sessions["s0"].standby is not None
    house.pool.reaped(1)
    assert house.sessions["s0"].standby is None
    assert house.made[0].dismissed == 1


def test_a_closed_session_is_not_looked_after(house: House) -> None:
    house.pool.want_now("s0")
    house.pool.make_due()
    house.pool.discard(cast("Session", house.sessions["s0"]))
    del house.sessions["s0"]
    house.pool.reaped(1)
    assert house.made[0].dismissed == 1


# -- warm ones ----------------------------------------------------------------------------------------------------


def test_a_command_is_followed_by_a_warm_sandbox(house: House) -> None:
    assert house.command() is None
    house.rest(0.01)
    assert house.warm() == 0
    house.rest()
    assert house.warm() == 1
    assert house.sessions["s0"].standby is None
    assert house.counts() == (1, 0, 1, 0, 0)


def test_a_warm_sandbox_is_of_no_command(house: House) -> None:
    house.command(structs.replace(COMMAND, environment=(b"SECRET=1",), note=b"note"))
    house.rest()
    (template,) = house.templates
    assert (template.argv, template.environment, template.note, template.tty) == ((), (), b"", None)
    assert template.limits == CgroupLimits()
    assert walls_of(template) == walls_of(COMMAND)


def test_the_next_command_takes_it_and_another_is_made(house: House) -> None:
    house.command()
    house.rest()
    taken = house.command(structs.replace(COMMAND, argv=(b"other",)))
    assert taken is not None
    assert house.warm() == 0
    house.rest()
    assert house.warm() == 1
    assert house.counts() == (1, 1, 1, 0, 0)


def test_two_may_wait(house: House) -> None:
    house.command(structs.replace(COMMAND, warm=2))
    house.rest()
    assert (house.warm(), house.sessions["s0"].standby) == (2, None)


@pytest.mark.parametrize("change", [{"warm": 0}, {"shim": ()}])
def test_none_is_made_where_none_is_wanted_or_possible(house: House, change: dict[str, Any]) -> None:
    house.command(structs.replace(COMMAND, **change))
    house.rest()
    assert house.warm() == 0
    assert house.sessions["s0"].standby is not None


def test_commands_in_a_row_find_a_standby_and_nothing_is_built_between_them(house: House) -> None:
    for _ in range(10):
        house.command()
        house.rest(0.008)
        house.pool.want_after_end("s0")
        house.rest(0.004)
        assert house.sessions["s0"].standby is not None
        house.sessions["s0"].take_standby()
    assert house.bwraps == []
    house.rest()
    assert house.warm() == 1


def test_other_walls_go_the_cold_way_and_become_what_is_built(house: House) -> None:
    house.command()
    house.rest()
    other = structs.replace(COMMAND, bwrap_args=(b"--unshare-ipc",))
    assert house.command(other) is None
    assert house.bwraps[0].killed == 1
    house.rest()
    assert house.command(other) is not None
    assert house.counts() == (0, 1, 2, 0, 1)


def test_a_command_with_hardly_any_memory_has_no_shim(house: House) -> None:
    house.command()
    house.rest()
    assert house.command(structs.replace(COMMAND, limits=CgroupLimits(memory_max_bytes=8 << 20))) is None
    assert house.warm() == 1


def test_where_none_may_wait_any_more_none_is_taken_and_none_is_left(house: House) -> None:
    house.command()
    house.rest()
    assert house.command(structs.replace(COMMAND, warm=0)) is None
    assert (house.warm(), house.bwraps[0].killed) == (0, 1)
    house.rest()
    assert house.counts() == (0, 0, 1, 0, 1)


def test_one_that_is_not_ready_is_not_waited_for(house: House) -> None:
    house.slow = True
    house.command()
    house.rest()
    assert house.command() is None
    assert house.warm() == 1
    house.heard[0]()
    assert house.heard == []
    assert house.command() is not None


def test_one_that_died_is_replaced(house: House) -> None:
    house.command()
    house.rest()
    house.bwraps[0].die()
    assert house.warm() == 0
    assert house.command() is None
    house.rest()
    assert house.counts() == (1, 0, 2, 1, 0)


def test_one_that_never_came_up_is_tried_again_after_a_pause_that_grows(house: House) -> None:
    house.slow = True
    house.command()
    house.rest()
    for tried, pause_s in enumerate((1, 2, 4), start=1):
        assert len(house.bwraps) == tried
        house.bwraps[-1].die()
        house.command()
        house.rest(pause_s - 0.1)
        assert len(house.bwraps) == tried
        house.rest(0.2)
    house.slow = False
    house.bwraps[-1].die()
    house.rest(8.1)
    assert house.warm() == 1
    house.bwraps[-1].on_news()
    house.slow = True
    house.command()
    house.rest()
    house.bwraps[-1].die()
    house.slow = False
    house.rest(1.1)
    assert house.warm() == 1, "the pause is the first one again"


def test_one_that_never_comes_up_is_not_tried_for_ever(house: House) -> None:
    house.slow = True
    house.command()
    for _ in range(20):
        house.rest(100)
        if house.bwraps[-1].monitor_status is None:
            house.bwraps[-1].die()
    tried = len(house.bwraps)
    house.rest(10_000)
    assert len(house.bwraps) == tried <= 10


def test_one_that_never_came_up_says_nothing_of_another_sandbox(house: House) -> None:
    house.slow = True
    house.command()
    house.rest()
    house.bwraps[0].die()
    house.slow = False
    house.command(structs.replace(COMMAND, bwrap_args=()))
    house.rest()
    assert house.warm() == 1


def test_a_changed_tree_is_seen_anew(house: House) -> None:
    house.command()
    house.rest()
    house.pool.tree_changed("s0")
    house.pool.tree_changed("s9")
    assert (house.warm(), house.bwraps[0].killed) == (0, 1)
    house.rest()
    assert house.warm() == 1


@pytest.mark.parametrize(("told", "left"), [(None, (0, 0)), ("s0", (0, 1))])
def test_short_memory_drops_what_waits(
    monkeypatch: pytest.MonkeyPatch, told: str | None, left: tuple[int, int]
) -> None:
    house = House(monkeypatch, count=2)
    for name in house.sessions:
        house.command(structs.replace(COMMAND, session=name))
    house.rest()
    assert house.watched == {"s0", "s1"}
    house.on_short(told)
    assert (house.warm("s0"), house.warm("s1")) == left
    assert "s0" not in house.watched


def test_nothing_is_built_while_memory_is_short(house: House) -> None:
    house.short = True
    house.command()
    house.rest()
    assert house.warm() == 0
    assert house.sessions["s0"].standby is not None


def test_what_nobody_uses_is_let_go_of(house: House) -> None:
    house.command()
    house.rest(200)
    assert house.warm() == 1
    house.rest(200)
    assert (house.warm(), house.pool.next_due()) == (0, None)
    assert house.counts() == (0, 0, 1, 0, 1)


def test_nothing_waits_or_is_born_in_a_paused_session(house: House) -> None:
    house.command()
    house.rest()
    session = cast("Session", house.sessions["s0"])
    house.pool.turn(session, paused=True)
    assert (house.warm(), house.bwraps[0].killed, house.sessions["s0"].standby) == (0, 1, None)
    assert house.awaited == ["/cgroup/s0"]
    made = len(house.made)
    for want in (house.pool.want_now, house.pool.want_after_start, house.pool.want_after_end, house.pool.tree_changed):
        want("s0")
        house.rest()
    assert (house.warm(), len(house.made)) == (0, made)
    house.pool.turn(session, paused=False)
    house.rest()
    assert house.warm() == 1


def test_a_closed_session_keeps_nothing(house: House) -> None:
    house.command()
    house.rest()
    house.pool.end()
    assert (house.warm(), house.bwraps[0].killed) == (0, 1)
    assert house.pool.next_due() is None
