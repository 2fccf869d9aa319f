"""`services.process_live`: from notices to a record, on pipes the test holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from msgspec import structs

from coworkd.model.errors import StartFailed, Unavailable
from coworkd.model.launch import Exited, Started, StartError
from coworkd.model.process import ExitRecord, OnFull, StreamName
from coworkd.services.process_live import LiveProcess
from coworkd.services.pumps import PipeWatch
from coworkd.services.spools import Spool
from coworkd.system import spool_file
from tests.unit.services.fake_launcher import RUSAGE
from tests.unit.services.process_house import NOW, PAGE, in_trio, jump, settle

STARTED = Started(process="one", init_pid=1, payload_pid=2, at=5.0, monitor_pid=9)
EXITED = Exited(process="one", code=0, signal=None, inferred=False, killed=False, oom_kills=0, rusage=RUSAGE, at=6.0)


def make_process(id: str, **options: Any) -> LiveProcess:
    fields: dict[str, Any] = {
        "one_shot": False,
        "drain_s": 0.5,
        "clock": lambda: NOW,
        "later": lambda task, *arguments: None,
        "ended": lambda process, record: None,
        "failed": lambda process, error: None,
    }
    return LiveProcess(id, "work", options.pop("argv", (b"cat",)), **{**fields, **options})


class Rig:
    """A process with stdout and stderr, whose tasks run in `nursery`."""

    def __init__(self, nursery: trio.Nursery, *, limit_bytes: int = 1 << 20, on_full: OnFull | None = None) -> None:
        self.records: list[ExitRecord] = []
        self.begun: list[str] = []
        self.process = make_process(
            "one", later=nursery.start_soon, ended=self._end, began=lambda process: self.begun.append(process.id)
        )
        self.writers: dict[str, int] = {}
        self.pipes = PipeWatch()
        self.pipes.open()
        nursery.start_soon(self.pipes.serve)
        streams: tuple[StreamName, ...] = ("stdout", "stderr")
        for name in streams:
            read, self.writers[name] = os.pipe()
            spool = Spool(spool_file.create(name), limit_bytes=limit_bytes, on_full=on_full)
            self.process.streams[name] = spool
            self.process.add_pump(read, spool).begin(self.pipes)

    def _end(self, process: LiveProcess, record: ExitRecord) -> None:
        self.records.append(record)

    def close_writers(self, *names: str) -> None:
        for name in names or tuple(self.writers):
            os.close(self.writers.pop(name))


def with_rig(**options: Any) -> Callable[[Callable[[Rig], Awaitable[None]]], Callable[[], None]]:
    def decorate(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
        async def run() -> None:
            async with trio.open_nursery() as nursery:
                rig = Rig(nursery, **options)
                await test(rig)
                rig.process.close()
                rig.close_writers()
                rig.pipes.close()
                nursery.cancel_scope.cancel()

        run.__name__ = getattr(test, "__name__", "run")
        return in_trio(run)

    return decorate


@with_rig()
async def test_notices_before_the_streams_are_there_count_when_they_are(rig: Rig) -> None:
    rig.process.learn(STARTED)
    rig.process.learn(EXITED)
    assert (rig.process.state, rig.process.settled.is_set()) == ("starting", False)
    rig.close_writers()
    rig.process.built()
    assert (rig.process.state, rig.process.pid, len(rig.records)) == ("exited", 2, 1)


@with_rig()
async def test_states_follow_the_notices(rig: Rig) -> None:
    rig.process.built()
    states = [rig.process.state]
    for notice in (STARTED, EXITED):
        rig.process.learn(notice)
        states.append(rig.process.state)
    assert states == ["starting", "running", "exited"]
    assert rig.process.started_at == 5.0


@with_rig()
async def test_one_that_was_moved_stands_below_the_bubblewrap_that_its_start_names(rig: Rig) -> None:
    rig.process.monitor_pid = 8
    rig.process.built()
    rig.process.learn(STARTED)
    assert rig.process.ancestors == (2, 1, 9)
    rig.process.learn(structs.replace(EXITED, started=STARTED))
    assert rig.process.ancestors == (2, 1, 9)


@with_rig()
async def test_an_exit_that_brings_its_start_is_learned_whole_and_the_start_is_told_behind_the_record(rig: Rig) -> None:
    rig.process.built()
    rig.close_writers()
    rig.process.learn(structs.replace(EXITED, started=STARTED))
    (record,) = rig.records
    assert (rig.process.pid, rig.process.init_pid, record.started_at, record.output) == (2, 1, 5.0, "complete")
    assert rig.begun == []
    for _ in range(2):
        rig.process.tell_start()
    assert rig.begun == ["one"]


@with_rig()
async def test_a_start_that_was_told_is_not_told_again(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(STARTED)
    rig.process.learn(EXITED)
    rig.process.tell_start()
    assert rig.begun == ["one"]


@with_rig()
async def test_exit_with_every_stream_ended_is_concluded_at_once(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(STARTED)
    os.write(rig.writers["stdout"], b"last words")
    rig.close_writers()
    rig.process.learn(EXITED)
    (record,) = rig.records
    assert (record.output, record.bytes) == ("complete", {"stdout": 10, "stderr": 0})


@with_rig()
async def test_exit_waits_for_streams_and_is_complete_when_they_end_in_time(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(EXITED)
    await settle()
    assert rig.records == []
    assert not rig.process.running
    os.write(rig.writers["stdout"], b"late")
    rig.close_writers()
    await settle()
    (record,) = rig.records
    assert (record.output, record.bytes["stdout"]) == ("complete", 4)


@with_rig()
async def test_exit_with_a_stream_held_open_is_told_after_the_drain(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(EXITED)
    rig.close_writers("stderr")
    await settle()
    jump(0.51)
    await settle()
    (record,) = rig.records
    assert record.output == "still_open"
    os.write(rig.writers["stdout"], b"later")
    await settle()
    assert rig.process.streams["stdout"].end == 5
    assert record.bytes["stdout"] == 0


@with_rig(limit_bytes=PAGE)
async def test_exit_takes_what_a_blocked_stream_left_in_its_pipe(rig: Rig) -> None:
    class Reader:
        offset = 0

        def more(self) -> None: ...

    rig.process.built()
    rig.process.streams["stdout"].follow(Reader())
    os.write(rig.writers["stdout"], b"x" * 10 * PAGE)
    await settle()
    assert rig.process.streams["stdout"].end == PAGE
    rig.close_writers()
    rig.process.learn(EXITED)
    (record,) = rig.records
    assert (record.output, record.bytes["stdout"]) == ("complete", 10 * PAGE)


@with_rig(limit_bytes=PAGE, on_full="block")
async def test_exit_sees_the_end_behind_a_pipe_that_was_left_full(rig: Rig) -> None:
    rig.process.built()
    os.write(rig.writers["stdout"], b"x" * PAGE)
    await settle()
    os.set_blocking(rig.writers["stdout"], False)
    left = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            left += os.write(rig.writers["stdout"], b"x" * PAGE)
    assert rig.process.streams["stdout"].end == PAGE
    rig.close_writers()
    rig.process.learn(EXITED)
    (record,) = rig.records
    assert (record.output, record.bytes["stdout"]) == ("complete", PAGE + left)


@with_rig(limit_bytes=PAGE)
async def test_exit_after_bytes_nobody_saw_were_dropped_is_truncated(rig: Rig) -> None:
    rig.process.built()
    os.write(rig.writers["stdout"], b"x" * 10 * PAGE)
    await settle()
    rig.close_writers()
    rig.process.learn(EXITED)
    assert rig.records[0].output == "truncated"


@with_rig()
async def test_notices_after_the_exit_change_nothing(rig: Rig) -> None:
    rig.process.built()
    rig.close_writers()
    rig.process.learn(EXITED)
    rig.process.learn(None)
    rig.process.learn(EXITED)
    assert len(rig.records) == 1
    assert rig.process.record == rig.records[0]


@with_rig()
async def test_lost_launcher_after_the_start_is_an_exit(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(STARTED)
    rig.close_writers()
    rig.process.learn(None)
    assert (rig.records[0].exit.reason, rig.records[0].ended_at) == ("lost", NOW)


@with_rig()
async def test_start_error_is_over_without_a_record(rig: Rig) -> None:
    rig.process.built()
    rig.process.learn(StartError(process="one", stage="bad_cwd", errno=2, message="no such directory"))
    assert rig.process.over.is_set()
    assert rig.records == []
    failure = rig.process.start_failure()
    assert isinstance(failure, StartFailed)
    assert (failure.message, failure.details["stage"], failure.details["errno"]) == ("no such directory", "bad_cwd", 2)


def test_start_failure_of_a_lost_launcher_is_unavailable() -> None:
    async def main() -> None:
        process = make_process("one")
        process.built()
        process.learn(None)
        assert process.settled.is_set()
        assert isinstance(process.start_failure(), Unavailable)

    trio.run(main)


@pytest.mark.parametrize("why", [None, "no terminal came"])
def test_start_failure_without_a_notice_is_a_setup_that_failed(why: str | None) -> None:
    process = make_process("one")
    process.terminal_error = why
    failure = process.start_failure()
    assert failure.details["stage"] == "sandbox_setup"
    assert why is None or failure.message == why


@with_rig()
async def test_close_twice_lets_go_once(rig: Rig) -> None:
    rig.process.built()
    rig.process.close()
    rig.process.close()
    await settle()
    assert rig.process.closed
