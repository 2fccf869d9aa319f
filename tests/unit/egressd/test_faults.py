from __future__ import annotations

from coworkd.egressd.faults import Faults
from tests.unit.egressd.test_loop import Clock


def fail() -> Exception:
    try:
        raise RuntimeError("a fault")
    except RuntimeError as error:
        return error


def test_a_fault_is_written_with_its_traceback_under_its_id() -> None:
    written: list[str] = []
    faults = Faults(Clock(), written.append)
    incident = faults.note(fail())
    assert f"incident {incident}\n" in written[0]
    assert "in fail\n" in written[0]
    assert written[0].endswith("RuntimeError: a fault\n")


def test_a_flood_is_counted_and_told_of_later() -> None:
    clock, written = Clock(), list[str]()
    faults = Faults(clock, written.append)
    incidents = {faults.note(fail()) for _ in range(100)}
    assert (len(incidents), faults.total, len(written)) == (100, 100, 20)
    clock.now += 10.5
    faults.note(fail())
    assert "(80 before it are not written)" in written[20]
