"""`services.process_lost`: what the audit log tells of commands whose end nobody saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from coworkd.auditlog.chain import Head, append_record
from coworkd.auditlog.kinds import admit
from coworkd.model import calls
from coworkd.model.errors import DiskFailed, NotFound
from coworkd.model.process import Exit
from coworkd.services import process_lost
from coworkd.services.process_lost import Found, Unended, find_unended
from tests.unit.services.process_house import FakeLink, House, in_trio, open_house, settle

LOST = Exit(code=None, signal=None, reason="lost")
RAN: dict[str, Any] = {"exit": {"code": 0, "signal": None}, "output": "complete"}


class Log:
    """Lines of a log; a `LookBack`."""

    def __init__(self) -> None:
        self.head = Head()
        self.lines: list[bytes] = []
        self.at = 100.0
        self.refuses = False

    def put(self, kind: str, /, boot: str = "now", **fields: Any) -> Log:
        self.at += 1
        line, self.head = append_record(self.head, kind, admit(kind, fields), at=self.at, boot=boot)
        self.lines.append(line)
        return self

    def come_up(self, boot: str = "now", launcher: int = 7) -> Log:
        self.opened(boot)
        return self.put("daemon.start", boot, version="1", pid=1, launcher_pid=launcher)

    def opened(self, boot: str = "now") -> Log:
        return self.put("audit.opened", boot, format=1, version="1")

    def start(self, *processes: str, boot: str = "now") -> Log:
        for process in processes:
            self.put("process.start", boot, session="work", process=process, argv=[b"sleep", b"\xff"])
        return self

    def exit(self, process: str) -> Log:
        return self.put("process.exit", session="work", process=process, **RAN)

    def find(self, *, launcher: int | None = None) -> Found:
        return find_unended(reversed(self.lines), launcher=launcher)

    @property
    def unended(self) -> list[str]:
        return names(self.find().unended)

    async def look_back(self, read: Callable[[Iterable[bytes]], Found], /) -> Found:
        if self.refuses:
            raise DiskFailed("the disk is away")
        return read(reversed(self.lines))


def names(commands: tuple[Unended, ...]) -> list[str]:
    return [command.id for command in commands]


def test_what_began_and_has_no_end_ran_to_the_last() -> None:
    log = Log().come_up().start("one", "two", "three").exit("two").opened()
    assert log.find() == Found(
        unended=tuple(
            Unended(id=name, session="work", argv=(b"sleep", b"\xff"), pid=None, started_at=at)
            for name, at in (("one", 103.0), ("three", 105.0))
        ),
        whole=True,
    )


@pytest.mark.parametrize("kind", ["process.start_failed", "process.denied"])
def test_what_never_ran_is_not_lost(kind: str) -> None:
    log = Log().come_up().start("one")
    log.put(kind, session="work", process="one", argv=[b"sleep"], message="no")
    assert log.opened().unended == []


def test_an_id_that_was_used_again_is_judged_by_its_last_use() -> None:
    log = Log().come_up().start("one").exit("one").start("one").opened()
    assert log.unended == ["one"]
    assert log.exit("one").unended == []


def test_what_was_adopted_has_been_taken_over_from_before() -> None:
    log = Log().come_up().start("old", "dead", "ended", "told").opened()
    facts: dict[str, Any] = {"session": "work", "argv": [b"make"], "pid": 7, "started_at": 5.0}
    for process, state, recorded in (("old", "running", False), ("ended", "exited", False), ("told", "exited", True)):
        log.put("process.adopt", process=process, state=state, recorded=recorded, **facts)
    log.put("daemon.start", version="1", pid=2).start("new").opened()
    found = log.find().unended
    assert [command.id for command in found] == ["old", "ended", "new"]
    assert (found[0].argv, found[0].pid, found[0].started_at) == ((b"make",), 7, 5.0)


def test_an_end_that_is_recorded_before_the_adoption_is_one() -> None:
    facts: dict[str, Any] = {"session": "work", "argv": [b"make"], "pid": 7, "started_at": 5.0, "recorded": False}
    log = Log().come_up().start("one", "two").opened().exit("one").exit("two").start("two")
    for process in ("one", "two"):
        log.put("process.adopt", process=process, state="exited", **facts)
    log.put("daemon.start", version="1", pid=2, launcher_pid=7).opened()
    assert log.unended == ["two"]
    assert names(log.find(launcher=7).unheard) == ["two"]


def test_a_coworkd_that_did_not_come_up_is_looked_past() -> None:
    assert Log().come_up().start("one").opened().opened().unended == ["one"]


def test_another_boot_is_not_looked_at() -> None:
    log = Log().come_up("before").start("one", boot="before").opened()
    assert log.find() == Found(unended=(), whole=True)


def test_a_line_that_is_no_record_is_passed_over() -> None:
    log = Log().come_up().start("one")
    log.lines.append(b'{"kind":"process.exit", torn\n')
    assert log.opened().unended == ["one"]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b'"at":', b'"bt":'),
        (b'"/w=="', b'"/w="'),
        (b'"argv":["', b'"argv":[7,"'),
        (b'"boot":"now"', b'"boot":"nox"'),
        (b'"seq":3', b'"seq":"3"'),
    ],
)
def test_a_line_that_was_changed_keeps_nobody_from_what_the_others_say(was: bytes, now: bytes) -> None:
    log = Log().come_up().start("one", "two").opened()
    changed = log.lines[2].replace(was, now)
    assert log.lines[2] != changed
    log.lines[2] = changed
    assert log.unended == ["two"]
    log.lines.append(log.lines.pop(2))
    assert log.unended == ["two"]


def test_what_a_log_does_not_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log().come_up().start("one", "two").opened()
    monkeypatch.setattr(process_lost, "LOOK_BACK_BYTES", len(log.lines[-1]) + len(log.lines[-2]))
    assert log.find() == Found(unended=log.find().unended[-1:], whole=False)
    assert names(log.find().unended) == ["two"]


def test_a_log_whose_beginning_was_dropped_does_not_reach() -> None:
    log = Log().come_up().start("one", "two").opened()
    assert log.find().whole
    del log.lines[:3]
    assert not log.find().whole


def test_a_glance_is_enough_where_another_had_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log().come_up().start("one").opened()
    monkeypatch.setattr(process_lost, "GLANCE_BYTES", len(log.lines[-1]) + len(log.lines[-2]))
    found = log.find(launcher=8)
    assert (names(found.unended), names(found.unheard), found.whole) == ([], ["one"], False)
    log.opened()
    assert names(log.find(launcher=8).unended) == ["one"]


def test_what_began_with_the_launcher_there_is_and_is_not_held_by_it_was_never_let_in() -> None:
    log = Log().come_up(launcher=7).start("one").opened()
    found = log.find(launcher=7)
    assert (names(found.unended), names(found.unheard), found.whole) == ([], ["one"], True)
    assert names(log.find(launcher=8).unended) == ["one"]
    assert log.unended == ["one"], "a launcher nobody had before us has the number of another"
    log.opened()
    found = log.find(launcher=7)
    assert (names(found.unended), names(found.unheard)) == ([], ["one"]), "though the one before us did not come up"


def test_of_several_launchers_of_one_coworkd_only_the_last_is_the_one_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`one` ran with the launcher before, and coworkd was killed before it had recorded its end; `two` never reached the one there is."""
    log = Log().come_up(launcher=6).start("none").put("launcher.lost", pid=6).exit("none").start("one")
    log.put("launcher.lost", pid=7).start("two").opened()
    found = log.find(launcher=8)
    assert (names(found.unended), names(found.unheard)) == (["one"], ["two"])
    assert log.unended == ["one", "two"], "nobody had the launcher there is before us"
    monkeypatch.setattr(process_lost, "GLANCE_BYTES", sum(map(len, log.lines[-5:])))
    assert names(log.find(launcher=8).unended) == ["one"]


def test_a_launcher_that_was_cut_off_and_came_back_is_the_one_there_is() -> None:
    log = Log().come_up(launcher=7).start("one").put("launcher.lost", pid=8).start("two").opened()
    assert names(log.find(launcher=8).unended) == ["one", "two"]


# -- what is told of them ------------------------------------------------------------------------------------------


async def come_for(house: House, process: str = "one") -> tuple[FakeLink, calls.ProcessAttached]:
    link = FakeLink()
    return link, await house.processes.attach(calls.ProcessAttach(process=process, stdout=500, acknowledge=True), link)


@in_trio
async def test_one_that_was_lost_is_there_until_it_is_forgotten() -> None:
    async with open_house() as house:
        await house.processes.take_lost(Log().come_up().start("one").opened(), launcher=None)
        assert house.processes.adoption.lost == ["one"]
        (info,) = (await house.processes.list(calls.ProcessListParams())).processes
        assert (info.state, info.argv, info.session, info.started_at) == ("exited", (b"sleep", b"\xff"), "work", 103.0)
        record = await house.processes.wait(calls.WaitProcess(process="one"))
        assert (record.exit, record.output, record.bytes) == (LOST, "truncated", {})
        link, attached = await come_for(house)
        assert attached.streams == {}
        (told,) = link.pull()
        assert told["exit"]["reason"] == "lost"
        await settle()
        assert house.audit.kinds == ["process.exit"]
        assert [event.name for event in house.events.published] == ["process.exit"]
        await house.processes.forget(calls.ForgetProcess(process="one"), house.link)
        with pytest.raises(NotFound):
            await come_for(house)


@in_trio
async def test_what_the_launcher_holds_was_not_lost() -> None:
    async with open_house() as house:
        await house.start()
        await house.processes.take_lost(Log().come_up().start("one").opened(), launcher=8)
        assert house.processes.adoption.lost == []
        assert (await house.processes.get(calls.ProcessName(process="one"))).state == "running"
        house.command.exit(0)


@in_trio
async def test_a_start_that_never_came_to_the_launcher_has_its_end_in_the_log() -> None:
    async with open_house() as house:
        await house.start()
        log = Log().come_up(launcher=8).start("one", "two").opened()
        await house.processes.take_lost(log, launcher=8)
        assert house.audit.kinds[-1] == "process.start_failed"
        assert house.audit.kinds.count("process.start_failed") == 1, "the launcher holds the other"
        fields = house.audit.records[-1][1]
        assert (fields["process"], fields["argv"], fields["code"]) == ("two", (b"sleep", b"\xff"), "UNAVAILABLE")
        assert house.processes.adoption.lost == []
        house.command.exit(0)


@in_trio
async def test_one_whose_end_is_recorded_while_the_log_is_read_has_no_second_one() -> None:
    async with open_house() as house:
        await house.start()
        log = Log().come_up(launcher=8).start("one").opened()

        async def look_back(read: Callable[[Iterable[bytes]], Found], /) -> Found:
            found = read(reversed(log.lines))
            house.command.exit(0)
            await settle()
            await house.processes.forget(calls.ForgetProcess(process="one"), house.link)
            await settle()
            return found

        log.look_back = look_back  # type: ignore[method-assign]
        await house.processes.take_lost(log, launcher=8)
        assert "process.start_failed" not in house.audit.kinds


@in_trio
async def test_a_one_shot_that_was_lost_is_recorded_and_forgotten() -> None:
    async with open_house() as house:
        await house.processes.take_lost(Log().come_up().start("run.one").opened(), launcher=None)
        await settle()
        assert house.processes.adoption.lost == ["run.one"]
        assert house.audit.kinds == ["process.exit"]
        assert (await house.processes.list(calls.ProcessListParams())).processes == ()


@in_trio
async def test_a_log_that_cannot_be_read_is_told_and_keeps_nobody() -> None:
    log = Log()
    log.refuses = True
    async with open_house() as house:
        await house.processes.take_lost(log, launcher=None)
        assert house.processes.adoption.unsearched
