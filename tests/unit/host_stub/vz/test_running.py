from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest
import trio

from host_stub.vz import words
from host_stub.vz.running import KEPT_BYTES, VzMachine, spawn
from host_stub.words import Ended, Trouble


def live(script: str, act: Callable[[VzMachine, socket.socket], None]) -> tuple[VzMachine, Ended]:
    """Run `script` as the process, do `act` with the machine and the process's end of the control socket, wait for the end."""
    machines: list[VzMachine] = []

    async def main() -> Ended:
        ours, theirs = socket.socketpair()
        with trio.fail_after(60), theirs:
            process = await spawn([sys.executable, "-c", script], theirs.fileno())
            machine = VzMachine(process, ours, None)
            machines.append(machine)
            async with trio.open_nursery() as nursery:
                await nursery.start(machine.run)
                act(machine, theirs)
                theirs.close()
                await machine.until_ended()
            machine.finish()
            return await machine.wait()
        raise AssertionError

    ended = trio.run(main)
    return machines[0], ended


def stopped(error: str) -> Callable[[VzMachine, socket.socket], None]:
    return lambda _machine, control: control.sendall(words.encode(words.Stopped(error=error)))


def panicked(machine: VzMachine, control: socket.socket) -> None:
    stopped("")(machine, control)
    machine.see_panic()


@pytest.mark.parametrize(
    ("script", "act", "ended"),
    [
        ("", stopped(""), Ended(how="powered_off", message="the guest powered itself off", exit_status=0)),
        ("", stopped("why"), Ended(how="failed", message="why", exit_status=0)),
        ("", panicked, Ended(how="panicked", message="the guest's kernel panicked", exit_status=0)),
        (
            "import sys; sys.exit('so it was')",
            lambda *_: None,
            Ended(how="failed", message="the process of the machine ended (1): so it was", exit_status=1),
        ),
        (
            "",
            lambda *_: None,
            Ended(how="failed", message="the process of the machine ended (0): it said nothing", exit_status=0),
        ),
    ],
)
def test_how_it_ended(script: str, act: Callable[[VzMachine, socket.socket], None], ended: Ended) -> None:
    assert live(script, act)[1] == ended


def test_what_the_process_says_is_bounded() -> None:
    machine, _ = live("print('x' * 1_000_000); print('the end')", lambda *_: None)
    assert machine.last_words(1) == "the end"
    assert len(machine.last_words(10)) <= KEPT_BYTES


def test_a_process_that_stays_after_its_machine_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_stub.vz.running.EXIT_S", 0.1)
    _, ended = live("import time; time.sleep(60)", stopped(""))
    assert (ended.how, ended.exit_status) == ("powered_off", -9)


def test_a_program_that_is_not_there_is_told() -> None:
    async def main() -> None:
        with pytest.raises(Trouble) as caught:
            await spawn(["/none"], 0)
        assert caught.value.code == "cannot_start"

    trio.run(main)
