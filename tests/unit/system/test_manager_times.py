from __future__ import annotations

import pytest

from coworkd.system import manager_times


def test_the_managers_moments_are_seconds_and_never_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "UserspaceTimestampMonotonic=2500000\nInitRDTimestampMonotonic=0\nFinishTimestampMonotonic=\n"
    monkeypatch.setattr(manager_times, "_ask", lambda arguments: text)
    assert manager_times.read_manager_times() == {"UserspaceTimestampMonotonic": 2.5}


def test_units_come_in_the_order_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = "Id={}\nInactiveExitTimestampMonotonic={}\nActiveEnterTimestampMonotonic={}\n"
    text = "\n".join(
        unit.format(*row) for row in [("b", 3_000_000, 4_000_000), ("a", 1_000_000, 1_000_000), ("x", 5, 0)]
    )
    monkeypatch.setattr(manager_times, "_ask", lambda arguments: text)
    assert manager_times.read_unit_times() == [("a", 1.0, 1.0), ("b", 3.0, 4.0)]


def test_a_machine_without_systemctl_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(OSError, match="no systemctl"):
        manager_times.read_manager_times()
