"""`services.guarding_callers`: which command it was."""

from __future__ import annotations

from coworkd.services.guarding_callers import REMEMBERED_S, Caller, Callers


class _Processes:
    """Implements `ports.CallerDirectory`."""

    def __init__(self) -> None:
        self.inits = {50: ("bob", "p1"), 60: ("alice", "p2")}
        self.only: str | None = None

    def find_by_ancestor(self, pid: int, /) -> tuple[str, str] | None:
        return self.inits.get(pid)

    def only_one_at(self, session: str, at: float, /) -> str | None:
        return self.only


class _Machine:
    def __init__(self) -> None:
        self.processes = _Processes()
        self.parents: dict[int, tuple[int, ...]] = {70: (70, 50, 40), 80: (80, 60, 40), 90: (90, 40)}
        self.now = 0.0
        self.callers = Callers(read_ancestry=lambda pid: self.parents.get(pid, ()), monotonic=lambda: self.now)
        self.callers.attach(self.processes)


def test_a_process_is_found_by_the_init_above_it() -> None:
    assert _Machine().callers.find("bob", 70, 0) == Caller("p1")


def test_the_commands_of_others_are_none_of_the_session() -> None:
    machine = _Machine()
    machine.processes.only = "p1"
    assert machine.callers.find("bob", 80, 0) == Caller(None)
    assert machine.callers.find("bob", 90, 0) == Caller(None)


def test_a_number_that_a_session_has_forked_for_is_not_taken_for_the_command_that_had_it() -> None:
    machine = _Machine()
    machine.processes.inits[49] = ("alice", "ended")
    machine.parents[70] = (70, 49, 50, 40)
    assert machine.callers.find("bob", 70, 0) == Caller("p1")
    assert machine.callers.owner((49, 50, 40)) == ("bob", "p1")


def test_one_that_has_gone_is_remembered_for_a_moment() -> None:
    machine = _Machine()
    machine.callers.find("bob", 70, 0)
    machine.parents.clear()
    assert machine.callers.find("bob", 70, 0) == Caller("p1")
    machine.now = REMEMBERED_S + 1
    assert machine.callers.find("bob", 70, 0) == Caller(None)


def test_one_that_has_gone_and_was_a_command_itself_is_that() -> None:
    machine = _Machine()
    machine.processes.inits |= {71: ("bob", "p3"), 72: ("alice", "p4")}
    assert machine.callers.find("bob", 71, 0) == Caller("p3")
    assert machine.callers.find("bob", 72, 0) == Caller(None)
    machine.processes.only = "p1"
    assert machine.callers.find("bob", 72, 0) == Caller("p1", inferred=True)


def test_one_that_waits_is_who_has_the_number_now() -> None:
    machine = _Machine()
    machine.processes.inits[51] = ("bob", "p3")
    machine.callers.find("bob", 70, 0)
    machine.parents[70] = (70, 51, 40)
    assert machine.callers.find("bob", 70, 0) == Caller("p1")
    assert machine.callers.find("bob", 70, 0, waits=True) == Caller("p3")


def test_one_that_nobody_saw_is_the_only_one_there_was_and_that_is_said() -> None:
    machine = _Machine()
    assert machine.callers.find("bob", 71, 0) == machine.callers.find("bob", 0, 0) == Caller(None)
    machine.processes.only = "p1"
    assert machine.callers.find("bob", 71, 0) == machine.callers.find("bob", 0, 0) == Caller("p1", inferred=True)
