from __future__ import annotations

from coworkd.model.ports import Frames
from coworkd.rpc.turns import FRAME_BYTES, GATHER_BYTES, TURN_BYTES, Turns
from tests.unit.rpc.fakes import FakeSource


def make_turns(count: int) -> tuple[Turns, list[FakeSource]]:
    """Sources that were all attached, in that order."""
    turns, sources = Turns(), [FakeSource(1) for _ in range(count)]
    for source in sources:
        turns.attach(source)
    return turns, sources


def ask(turns: Turns, *, first_half: bool = True) -> tuple[Frames, int] | None:
    return turns.next(GATHER_BYTES, first_half=first_half)


def test_a_source_is_asked_for_a_frame_first_and_then_for_whole_turns() -> None:
    turns, [source] = make_turns(1)
    assert ask(turns) == (source, FRAME_BYTES)
    turns.again(source)
    assert ask(turns) == (source, TURN_BYTES)


def test_turns_go_round() -> None:
    turns, sources = make_turns(3)
    asked = []
    for _ in range(9):
        turn = ask(turns)
        assert turn is not None
        turns.again(turn[0])
        asked.append(turn[0])
    assert asked == 3 * sources


def test_one_that_had_nothing_is_not_asked_until_it_wakes() -> None:
    turns, [silent, other] = make_turns(2)
    ask(turns)
    ask(turns)
    turns.again(other)
    ask(turns)
    assert ask(turns) is None
    turns.wake(silent)
    turns.wake(silent)
    assert ask(turns) == (silent, FRAME_BYTES)
    assert ask(turns) is None


def test_one_that_wakes_goes_before_those_that_have_more() -> None:
    turns, [quiet, *loud] = make_turns(4)
    ask(turns)
    for source in loud:
        ask(turns)
        turns.again(source)
    turns.wake(loud[0])
    turns.wake(quiet)
    assert ask(turns) == (quiet, FRAME_BYTES)
    assert ask(turns) == (loud[0], TURN_BYTES)


def test_those_who_go_first_leave_half_of_a_send_to_the_others() -> None:
    turns, [loud, *many] = make_turns(3)
    ask(turns)
    turns.again(loud)
    assert ask(turns, first_half=False) == (loud, TURN_BYTES)
    assert ask(turns, first_half=False) == (many[0], FRAME_BYTES)
    turns.again(loud)
    assert ask(turns) == (many[1], FRAME_BYTES)


def test_nobody_is_asked_for_more_than_is_left_of_a_send() -> None:
    turns, [source] = make_turns(1)
    assert turns.next(10, first_half=False) == (source, 10)


def test_one_that_wakes_in_its_turn_stands_in_line_once() -> None:
    turns, [source] = make_turns(1)
    ask(turns)
    turns.wake(source)
    turns.again(source)
    assert ask(turns) == (source, FRAME_BYTES)
    assert ask(turns) is None


def test_a_detached_source_stands_nowhere() -> None:
    turns, [first, second, silent] = make_turns(3)
    for _ in range(3):
        ask(turns)
    turns.again(second)
    turns.wake(first)
    assert [turns.detach(source) for source in (first, second, silent, silent)] == [True, True, True, False]
    turns.wake(first)
    turns.again(second)
    assert ask(turns) is None
    assert list(turns) == []


def test_one_that_is_attached_again_stands_in_line_once() -> None:
    turns, [source] = make_turns(1)
    turns.attach(source)
    assert turns.detach(source)
    assert ask(turns) is None
    assert list(turns) == []
