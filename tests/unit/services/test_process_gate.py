"""`services.process_gate`: once, by the second, and never by the first alone."""

from __future__ import annotations

import threading

import pytest

from coworkd.services.process_gate import Gate


@pytest.mark.parametrize("could", [True, False])
def test_the_second_opens_it_and_it_says_whether_it_could(could: bool) -> None:
    opened: list[bool] = []

    def open_it() -> bool:
        opened.append(True)
        return could

    gate = Gate(open_it)
    gate.come()
    assert (opened, gate.opened) == ([], False)
    gate.come()
    assert (opened, gate.opened) == ([True], could)


def test_two_threads_at_once_open_it_once() -> None:
    for _ in range(200):
        opened: list[bool] = []
        gate = Gate(lambda opened=opened: not opened.append(True))  # type: ignore[misc]
        both = threading.Barrier(2)

        def come(gate: Gate = gate, both: threading.Barrier = both) -> None:
            both.wait()
            gate.come()

        threads = [threading.Thread(target=come) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opened == [True]
