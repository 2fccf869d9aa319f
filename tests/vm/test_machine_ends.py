"""How a machine ends, as the QEMU back end tells it; and what it does while it is paused."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
import trio

from coworkd.model.errors import CoworkError
from tests.vm.guest_lab import Guest


def trigger(guest: Guest, letter: str) -> None:
    """Magic SysRq, by which the kernel itself does it; the shell may have time to answer, or not."""
    with contextlib.suppress(TimeoutError, OSError):
        guest.shell.run(f"echo 1 >/proc/sys/kernel/sysrq; echo {letter} >/proc/sysrq-trigger", timeout_s=20)


def test_a_guest_that_powers_itself_off(guest: Guest) -> None:
    trigger(guest, "o")
    assert guest.ended().how == "powered_off"


def test_a_guest_that_starts_anew_ends(guest: Guest) -> None:
    trigger(guest, "b")
    assert guest.ended().how == "reset"


def test_a_panic_is_told_with_the_kernels_words(guest: Guest) -> None:
    trigger(guest, "c")
    ended = guest.ended()
    assert ended.how == "panicked"
    assert "Kernel panic - not syncing" in ended.message


def test_a_machine_that_is_killed_is_told_so_to_all_who_wait(guest: Guest) -> None:
    async def kill_and_wait() -> list[str]:
        said: list[str] = []

        async def wait() -> None:
            said.append((await guest.machine.wait()).how)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await guest.machine.kill()
        return said

    assert guest.run(kill_and_wait) == ["killed", "killed"]


def test_qemu_killed_by_another_is_a_failure(guest: Guest) -> None:
    os.kill(guest.machine.pid, signal.SIGKILL)
    ended = guest.ended()
    assert ended.how == "failed"
    assert "signal 9" in ended.message


def test_a_paused_machine_is_silent_and_goes_on(guest: Guest) -> None:
    client = guest.connect()
    guest.run(guest.machine.pause)
    with pytest.raises(CoworkError):
        client.call("ping", timeout_s=0.5)
    guest.run(guest.machine.resume)
    guest.connect().ping()
