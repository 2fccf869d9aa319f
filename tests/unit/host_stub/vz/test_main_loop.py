from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from host_stub.vz.main_loop import EXIT_BUG, MainLoop
from tests.unit.host_stub.vz.fake_vz import FakeMac


def test_work_of_other_threads_is_done_in_order_on_the_main_one() -> None:
    loop = MainLoop(FakeMac().framework)
    done: list[tuple[int, int]] = []

    def work(number: int) -> Callable[[], None]:
        return lambda: done.append((number, threading.get_ident()))

    def elsewhere() -> None:
        for number in range(3):
            loop.call(work(number))
        loop.call(lambda: loop.end(3))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert loop.run() == 3
    thread.join()
    assert done == [(number, threading.get_ident()) for number in range(3)]
    assert loop.ended.is_set()


def test_the_first_status_counts() -> None:
    loop = MainLoop(FakeMac().framework)
    loop.end(0)
    loop.end(9)
    assert loop.run() == 0


def test_an_exception_ends_the_loop_and_is_not_raised(capsys: pytest.CaptureFixture[str]) -> None:
    loop = MainLoop(FakeMac().framework)
    assert loop.guard(lambda: 1 // 0, failing=False)() is False
    assert loop.run() == EXIT_BUG
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_run_loop_that_has_nothing_to_wait_on_is_not_spun(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = FakeMac()
    mac.behaviours["-NSRunLoop runMode:beforeDate:"] = lambda *_: False
    loop = MainLoop(mac.framework)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        loop.end(0)

    monkeypatch.setattr("host_stub.vz.main_loop.time.sleep", sleep)
    assert loop.run() == 0
    assert len(slept) == 1
    assert slept[0] > 0
