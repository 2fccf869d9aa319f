"""`services.process_callers`: each link is asked once, and tells of every one-shot that waits on it."""

from __future__ import annotations

import trio

from coworkd.services.process_callers import RETURN_S, Callers
from coworkd.services.process_live import LiveProcess
from tests.unit.services.process_house import FakeLink, in_trio, jump, settle
from tests.unit.services.test_process_live import make_process


def make_callers(gone: list[LiveProcess]) -> Callers:
    def later(*_: object) -> None:
        raise AssertionError("nobody comes back here")

    return Callers(gone.append, later)


def test_closing_a_link_tells_of_what_waits_on_it_alone() -> None:
    gone: list[LiveProcess] = []
    callers = make_callers(gone)
    one, two, other = make_process("one"), make_process("two"), make_process("other")
    link, elsewhere = FakeLink(), FakeLink()
    callers.add(link, one)
    callers.add(link, two)
    callers.add(elsewhere, other)
    callers.discard(link, two)
    link.close()
    assert gone == [one]


def test_a_link_is_asked_once() -> None:
    callers = make_callers([])
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
    callers = make_callers(gone)
    process = make_process("one")
    callers.add(ClosedLink(), process)
    assert gone == [process]


def test_discard_of_what_was_never_added_is_passed_over() -> None:
    make_callers([]).discard(FakeLink(), make_process("one"))


@in_trio
async def test_a_caller_that_can_come_back_has_its_time() -> None:
    gone: list[LiveProcess] = []
    async with trio.open_nursery() as nursery:
        callers = Callers(gone.append, nursery.start_soon)
        process, link = make_process("one"), FakeLink()
        callers.add(link, process, "id-1")
        link.close()
        await settle()
        jump(RETURN_S - 1)
        await settle()
        assert gone == []
        jump(1)
        await settle()
        assert gone == [process]


@in_trio
async def test_a_caller_that_came_back_keeps_its_command() -> None:
    gone: list[LiveProcess] = []
    back = {"id-1"}
    async with trio.open_nursery() as nursery:
        callers = Callers(gone.append, nursery.start_soon)
        callers.attach(back.__contains__)
        process, link = make_process("one"), FakeLink()
        callers.add(link, process, "id-1")
        link.close()
        for _ in range(5):
            await settle()
            jump(RETURN_S)
        await settle()
        assert gone == []
        back.clear()
        jump(RETURN_S)
        await settle()
        assert gone == [process]


@in_trio
async def test_a_command_that_ends_meanwhile_is_left_alone() -> None:
    gone: list[LiveProcess] = []
    async with trio.open_nursery() as nursery:
        callers = Callers(gone.append, nursery.start_soon)
        process, link = make_process("one"), FakeLink()
        callers.add(link, process, "id-1")
        link.close()
        await settle()
        process.over.set()
    assert gone == []
