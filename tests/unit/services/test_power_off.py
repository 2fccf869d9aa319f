from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from coworkd.services.power_off import enforce, power_off


def test_what_was_written_comes_first() -> None:
    done: list[str] = []
    trio.run(lambda: power_off(5.0, sync=lambda: done.append("sync"), off=lambda: done.append("off")))
    assert done == ["sync", "off"]


def test_a_sync_that_hangs_does_not_eat_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    going = threading.Event()
    done: list[float] = []

    def hang() -> None:
        going.wait()

    async def main() -> None:
        began = trio.current_time()
        await power_off(2.0, sync=hang, off=lambda: done.append(trio.current_time() - began))

    trio.run(main, clock=trio.testing.MockClock(rate=1000.0))
    going.set()
    assert len(done) == 1
    assert done[0] >= 2.0
    assert "not everything was written" in caplog.text


def test_a_kernel_that_refuses_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    trio.run(lambda: power_off(0.0, sync=lambda: None, off=refuse))
    assert "CAP_SYS_BOOT" in caplog.text


def test_whatever_hangs_the_machine_goes_off() -> None:
    off, going = threading.Event(), threading.Event()

    def hang() -> None:
        going.wait()

    enforce(0.0, sync=hang, off=off.set)
    assert off.wait(60)
    going.set()


def test_what_was_written_is_synced_even_then() -> None:
    """What hangs may be long before the last step, a worker of a share's that is gone."""
    done: list[str] = []
    off = threading.Event()
    enforce(0.0, sync=lambda: done.append("sync"), off=off.set)
    assert off.wait(60)
    assert done == ["sync"]
