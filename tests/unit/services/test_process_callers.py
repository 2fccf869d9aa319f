"""`services.process_callers`: each link is asked once, and tells of every one-shot that waits on it."""

from __future__ import annotations

from coworkd.services.process_callers import Callers
from coworkd.services.process_live import LiveProcess
from tests.unit.services.process_house import FakeLink
from tests.unit.services.test_process_live import make_process


def test_closing_a_link_tells_of_what_waits_on_it_alone() -> None:
    gone: list[LiveProcess] = []
    callers = Callers(gone.append)
    one, two, other = make_process("one"), make_process("two"), make_process("other")
    link, elsewhere = FakeLink(), FakeLink()
    callers.add(link, one)
    callers.add(link, two)
    callers.add(elsewhere, other)
    callers.discard(link, two)
    link.close()
    assert gone == [one]


def test_a_link_is_asked_once() -> None:
    callers = Callers(lambda process: None)
    link = FakeLink()
    for _ in range(3):
        process = make_process("one")
        callers.add(link, process)
        callers.discard(link, process)
    assert link.listeners == 1


def test_a_link_that_is_closed_already_tells_at_once() -> None:
    class ClosedLink(FakeLink):
        def on_close(self, call, /) -> None:  # type: ignore[no-untyped-def]
            call()

    gone: list[LiveProcess] = []
    callers = Callers(gone.append)
    process = make_process("one")
    callers.add(ClosedLink(), process)
    assert gone == [process]


def test_discard_of_what_was_never_added_is_passed_over() -> None:
    Callers(lambda process: None).discard(FakeLink(), make_process("one"))
