"""`services.process_gate`: once, by the second, and never by the first alone."""

from __future__ import annotations

import threading

from coworkd.services.process_gate import Gate


class Held:
    """Implements `ports.CommandGate`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")


def held_by(gate: Gate) -> Held:
    held = Held()
    gate.hold(held)
    return held


def test_the_second_opens_it_whichever_it_is() -> None:
    for first, second in ((Gate.recorded, Gate.ready), (Gate.ready, Gate.recorded)):
        gate = Gate()
        held = held_by(gate)
        first(gate)
        assert held.calls == []
        second(gate)
        assert held.calls == ["open"]


def test_a_record_may_be_durable_before_there_is_a_gate() -> None:
    gate = Gate()
    gate.recorded()
    held = held_by(gate)
    gate.ready()
    assert held.calls == ["open"]


def test_one_that_is_shut_lets_go_of_what_it_holds_and_never_opens() -> None:
    gate = Gate()
    gate.shut()
    held = held_by(gate)
    gate.ready()
    gate.shut()
    gate.recorded()
    assert held.calls == ["close"]


def test_one_that_has_opened_cannot_be_shut() -> None:
    gate = Gate()
    held = held_by(gate)
    gate.ready()
    gate.recorded()
    gate.shut()
    assert held.calls == ["open"]


def test_two_threads_at_once_open_it_once() -> None:
    for _ in range(200):
        gate = Gate()
        held = held_by(gate)
        both = threading.Barrier(2)

        def come(call: object, both: threading.Barrier = both) -> None:
            both.wait()
            call()  # type: ignore[operator]

        threads = [threading.Thread(target=come, args=(call,)) for call in (gate.recorded, gate.ready)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert held.calls == ["open"]


def test_who_shuts_it_hears_whether_it_was_opened_before() -> None:
    for comers, opened in (((), False), ((Gate.ready,), False), ((Gate.ready, Gate.recorded), True)):
        gate = Gate()
        held_by(gate)
        for come in comers:
            come(gate)
        assert gate.shut() is gate.shut() is opened
    gate = Gate()
    held_by(gate)
    gate.shut()
    gate.ready()
    gate.recorded()
    assert gate.shut() is False


def test_the_command_is_let_in_once_it_is_open_and_not_where_it_was_shut() -> None:
    gate, never = Gate(), Gate()
    held_by(gate), held_by(never)
    never.shut()
    for each in (gate, never):
        each.recorded()
        assert not each.is_open()
        each.ready()
    assert (gate.is_open(), never.is_open()) == (True, False)
