"""`services.launching_adopted`: nothing that happens before somebody takes it is lost."""

from __future__ import annotations

from msgspec import structs

from coworkd.model.launch import Adopted, Exited, Spawned, Started, StartError
from coworkd.services.launching_adopted import Untaken
from tests.unit.services.fake_launcher import RUSAGE, FakeFds

SPAWNED = Spawned(id=0, process="one", monitor_pid=9, fds=(), at=1.0)
RUNNING = Adopted(
    id=0, process="one", session="bob", argv=(b"cat",), spawned=SPAWNED, started=None, start_error=None, exited=None
)
STARTED = Started(process="one", init_pid=2, payload_pid=3, at=2.0, monitor_pid=9)
FAILED = StartError(process="one", stage="not_found", errno=2, message="no such command")
EXITED = Exited(process="one", code=0, signal=None, inferred=False, killed=False, oom_kills=0, rusage=RUSAGE, at=3.0)


class Fds(FakeFds):
    def __init__(self) -> None:
        super().__init__(SPAWNED, {})
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def kept(adopted: Adopted = RUNNING) -> Untaken:
    untaken = Untaken()
    untaken.keep(adopted, Fds())
    return untaken


def test_what_happens_meanwhile_is_part_of_what_is_taken() -> None:
    untaken = kept()
    assert untaken.learn(STARTED)
    assert untaken.learn(EXITED)
    ((adopted, _),) = untaken.take()
    assert adopted == structs.replace(RUNNING, started=STARTED, exited=EXITED)
    assert untaken.take() == []


def test_a_start_that_failed_meanwhile_is_part_of_it() -> None:
    untaken = kept()
    assert untaken.learn(FAILED)
    ((adopted, _),) = untaken.take()
    assert adopted.start_error == FAILED


def test_news_of_others_is_not_taken() -> None:
    untaken = kept()
    assert not untaken.learn(structs.replace(STARTED, process="two"))
    untaken.take()
    assert not untaken.learn(STARTED)


def test_what_was_lost_is_told_once_to_who_took_it() -> None:
    untaken = kept()
    untaken.lose()
    assert len(untaken.take()) == 1
    assert untaken.was_lost("one")
    assert not untaken.was_lost("one")


def test_what_had_ended_cannot_be_lost() -> None:
    for notice in (EXITED, FAILED):
        untaken = kept()
        untaken.learn(notice)
        untaken.lose()
        assert not untaken.was_lost("one")


def test_told_twice_the_later_counts_and_the_first_is_closed() -> None:
    untaken, first, second = Untaken(), Fds(), Fds()
    untaken.keep(RUNNING, first)
    untaken.lose()
    untaken.keep(structs.replace(RUNNING, started=STARTED), second)
    assert (first.closed, second.closed) == (1, 0)
    assert not untaken.was_lost("one")
    untaken.close()
    assert second.closed == 1
